"""Who is left out, and when; deaths by kind."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from actors.metrics import SIMULATORS_RESTARTED
from actors.report import Report
from actors.watchdog import DEATHS_IN_A_ROW, KINDS, NoTaskLeft, Outcome, Watchdog
from avavla_ray.simulators.base import SimulatorFailure


def death(task: int, kind: str = "crash") -> Outcome:
    return Outcome(task, kind, "its process died of SIGSEGV", aborted=True)


def test_a_task_is_left_out_after_deaths_in_a_row_and_said_once() -> None:
    watchdog = Watchdog((0, 1, 2))
    assert [watchdog.saw(death(1)) for _ in range(DEATHS_IN_A_ROW + 2)] == [False, False, True, False, False]
    assert watchdog.playable() == (0, 2)
    assert watchdog.quarantined == {
        1: "task 1 is quarantined: its simulator died 3 times in a row, "
        "the last time because its process died of SIGSEGV"
    }
    assert watchdog.deaths == {"crash": 5}


def test_an_episode_that_ends_starts_the_count_anew_and_others_do_not() -> None:
    watchdog = Watchdog((0, 1))
    for _ in range(5):
        watchdog.saw(death(0))
        watchdog.saw(death(0, "hang"))
        watchdog.saw(Outcome(0))
    assert watchdog.playable() == (0, 1)
    for _ in range(2):
        watchdog.saw(death(0))
        watchdog.saw(Outcome(1))
    assert watchdog.saw(death(0))
    assert watchdog.deaths == {"crash": 8, "hang": 5}


def test_a_sick_machine_alone_quarantines_nothing() -> None:
    watchdog = Watchdog((0, 1), witnesses=2)
    assert not any(watchdog.saw(death(task), runner=7) for task in (0, 1) for _ in range(5))
    assert watchdog.playable() == (0, 1)
    watchdog.saw(Outcome(0), runner=8)  # there the task is well
    assert not watchdog.saw(death(0), runner=8)
    assert watchdog.saw(death(1), runner=8)
    assert watchdog.playable() == (0,)


def test_where_there_are_several_machines_two_of_them_have_to_have_seen_it() -> None:
    watchdog = Watchdog((0, 1), witnesses=2)
    watchdog.saw(Outcome(1), runner=3, machine="well")
    assert not any(watchdog.saw(death(0), runner, "sick") for runner in (0, 1, 2) for _ in range(3))
    assert watchdog.playable() == (0, 1)
    assert watchdog.saw(death(0), 3, "well")
    assert watchdog.playable() == (1,)


def test_machines_that_are_gone_or_not_known_yet_are_no_witnesses() -> None:
    watchdog = Watchdog((0, 1), witnesses=2)
    watchdog.saw(Outcome(1), runner=3, machine="gone")
    watchdog.saw(replace(death(1), shared=True), runner=2)  # it never said where it was
    watchdog.among((0, 1))
    assert [watchdog.saw(death(0), runner, "there") for runner in (0, 0, 1)] == [False, False, True]


def test_what_goes_down_with_others_is_counted_and_held_against_no_task() -> None:
    watchdog = Watchdog((0,))
    shared = replace(death(0), shared=True)
    assert not any(watchdog.saw(shared) for _ in range(10))
    assert watchdog.playable() == (0,)
    assert watchdog.deaths == {"crash": 10}


def test_what_others_have_left_out_is_left_out_too() -> None:
    watchdog = Watchdog((0, 1))
    assert watchdog.adopt({0: "task 0 is quarantined"}) == ["task 0 is quarantined"]
    assert watchdog.adopt({0: "task 0 is quarantined, as somebody else says"}) == []
    assert watchdog.playable() == (1,)


def test_nothing_left_to_play_is_said_with_the_reason_and_travels() -> None:
    watchdog = Watchdog((4, 5), limit=1)
    watchdog.saw(death(4))
    watchdog.saw(Outcome(5, "hang", "reset took longer than 180 s"))
    with pytest.raises(NoTaskLeft, match="all 2 are quarantined; task 5 .* took longer than 180 s") as caught:
        watchdog.playable()
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is NoTaskLeft
    assert str(again) == str(caught.value)
    assert set(again.quarantined) == {4, 5}


def test_a_report_counts_what_its_simulators_ended() -> None:
    outcomes = [Outcome(0), death(1), death(2, "hang"), Outcome(1, "crash", "in reset"), Outcome(2)]
    report = Report(0, outcomes=outcomes)
    assert report.failures == {"crash": 2, "hang": 1}
    assert report.aborted == 2


def test_every_kind_of_failure_is_counted() -> None:
    assert set(SIMULATORS_RESTARTED) == set(KINDS)
    assert SimulatorFailure("it diverged").kind in KINDS
