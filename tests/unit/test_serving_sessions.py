"""Sessions: what is kept, for how long, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from actors.serving.faults import Fault
from actors.serving.messages import BeliefArrays
from actors.serving.sessions import Sessions


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def refusal(call, *arguments):
    with pytest.raises(Fault) as caught:
        call(*arguments)
    return caught.value


def enter(sessions, name):
    with sessions.use(name):
        pass


def test_a_session_begins_without_a_belief_and_keeps_the_last():
    sessions = Sessions(60, 4)
    name = sessions.open()
    belief = BeliefArrays(np.ones((1, 2, 3), np.float32), np.ones((1, 4), np.float32))
    with sessions.use(name) as session:
        assert session.belief is None
        session.belief = belief
    with sessions.use(name) as session:
        assert session.belief is belief


def test_names_cannot_be_guessed_from_one_another():
    sessions = Sessions(60, 1000)
    names = {sessions.open() for _ in range(1000)}
    assert len(names) == 1000
    assert min(map(len, names)) >= 20


def test_expires_after_idle_time_which_every_use_begins_anew():
    clock = Clock()
    sessions = Sessions(60, 4, clock)
    used, unused = sessions.open(), sessions.open()
    clock.now += 50
    enter(sessions, used)
    clock.now += 50
    enter(sessions, used)
    assert len(sessions) == 1
    fault = refusal(enter, sessions, unused)
    assert fault.status == 404
    assert "idle for 1 minutes" in str(fault)
    clock.now += 60
    assert refusal(enter, sessions, used).status == 404


def test_a_decision_under_way_does_not_expire():
    clock = Clock()
    sessions = Sessions(60, 4, clock)
    name = sessions.open()
    with sessions.use(name):
        clock.now += 600
        assert len(sessions) == 1
    clock.now += 50
    enter(sessions, name)


def test_two_requests_of_one_session_at_once():
    sessions = Sessions(60, 4)
    name, other = sessions.open(), sessions.open()
    with sessions.use(name):
        fault = refusal(enter, sessions, name)
        assert fault.status == 409
        enter(sessions, other)
    enter(sessions, name)


def test_a_decision_that_fails_leaves_belief_and_session_as_they_were():
    sessions = Sessions(60, 4)
    name = sessions.open()
    with pytest.raises(RuntimeError), sessions.use(name):
        raise RuntimeError
    with sessions.use(name) as session:
        assert session.belief is None


def test_closed_is_gone_and_makes_room():
    sessions = Sessions(60, 1)
    name = sessions.open()
    assert refusal(sessions.open).status == 429
    sessions.close(name)
    assert refusal(sessions.close, name).status == 404
    sessions.open()


def test_expired_sessions_make_room():
    clock = Clock()
    sessions = Sessions(60, 1, clock)
    sessions.open()
    clock.now += 61
    sessions.open()
