"""The tree of what a process spends its time on."""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Iterator

import pytest

from avavla_ray import timing
from avavla_ray.timing import span


@pytest.fixture
def on() -> Iterator[None]:
    timing.switch(True)
    yield
    timing.switch(False)


def test_spans_make_a_tree_that_starts_anew_when_it_is_taken(on: None) -> None:
    for _ in range(3):
        with span("policy"):
            with span("think"):
                time.sleep(0.01)
            with span("decode"):
                pass
    with span("waiting"):
        time.sleep(0.01)
    taken = timing.take("runner")
    assert list(taken) == ["runner", "runner/policy/think", "runner/policy/decode", "runner/policy", "runner/waiting"]
    assert [count for _, count in taken.values()] == [1, 3, 3, 3, 1]
    assert 0.03 <= taken["runner/policy/think"][0] <= taken["runner/policy"][0] < taken["runner"][0]
    assert taken["runner"][0] >= taken["runner/policy"][0] + taken["runner/waiting"][0]
    assert list(timing.take_seconds("runner")) == ["runner"]


def test_a_span_ends_with_the_exception_that_leaves_it(on: None) -> None:
    with pytest.raises(ValueError), span("policy"), span("think"):
        raise ValueError
    with span("waiting"):
        pass
    assert set(timing.take("r")) == {"r", "r/policy", "r/policy/think", "r/waiting"}


def test_threads_have_places_of_their_own_in_one_tree(on: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with span("loading"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with span("learning"):
        pass
    leave.set()
    thread.join()
    assert set(timing.take("learner")) == {"learner", "learner/learning", "learner/loading"}


def test_nothing_is_kept_while_it_is_off() -> None:
    with span("policy"):
        pass
    assert timing.take("runner") == {}
    assert not timing.is_on()


@pytest.mark.alone
def test_a_span_that_is_off_costs_next_to_nothing() -> None:
    def spanned() -> None:
        with span("policy"):
            pass

    def empty() -> None:
        pass

    spanned_s, empty_s = (min(timeit.repeat(do, number=100_000, repeat=20)) / 100_000 for do in (spanned, empty))
    assert spanned_s - empty_s < 0.5e-6  # 0.15 on a quiet machine
