"""What is learned from, what is dropped, and when the queue is full; against a plain restatement of the rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.fragment_queue import FragmentQueue, Lot
from actors.report import Report


def lot(decisions: int, version: int = 0, runner: int = 1, round: int = 0) -> Lot:
    return Lot(f"{decisions}@{version}", Report(version, decisions=decisions), runner, round)


def test_an_update_takes_the_oldest_lots_that_are_enough() -> None:
    queue = FragmentQueue(10, max_lag=4, limit=20)
    assert queue.take(0) == []
    lots = [lot(4), lot(4), lot(4), lot(7)]
    for count, each in enumerate(lots):
        assert queue.enough is (count > 2)
        queue.put(each)
    assert queue.decisions == 19
    assert queue.take(0) == lots[:3]
    assert queue.lots == (lots[3],)
    assert queue.take(0) == []
    assert (queue.used.lots, queue.used.decisions) == (3, 12)


def test_no_learner_goes_without_a_lot() -> None:
    queue = FragmentQueue(10, ranks=3, max_lag=4, limit=10)
    queue.put(lot(100))
    queue.put(lot(1))
    assert not queue.enough
    assert not queue.full, "or the third would never come"
    queue.put(lot(1))
    assert queue.full
    assert len(queue.take(0)) == 3


def test_what_is_kept_behind_makes_an_update_wait_and_its_decisions_older() -> None:
    queue = FragmentQueue(10, max_lag=9, limit=30, behind=20)
    for version in range(6):
        queue.put(lot(10, version))
        assert (queue.enough, queue.full) == (version > 1, version > 1)
        taken = queue.take(version)
        assert [version - each.report.version for each in taken] == ([2] if version > 1 else [])
    with pytest.raises(ValueError, match="a queue of 29 decisions never holds the 30"):
        FragmentQueue(10, max_lag=9, limit=29, behind=20)


def test_it_is_full_until_something_is_taken_or_dropped() -> None:
    queue = FragmentQueue(8, max_lag=0, limit=16)
    for _ in range(3):
        assert not queue.full
        queue.put(lot(6))
    assert queue.full
    queue.drop_old(1)
    assert not queue.full
    with pytest.raises(ValueError, match="a queue of 7 decisions never holds the 8"):
        FragmentQueue(8, max_lag=0, limit=7)


def test_what_holds_no_decision_is_not_queued() -> None:
    queue = FragmentQueue(1, max_lag=0, limit=1)
    queue.put(lot(0))
    assert len(queue) == 0


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=30),
    st.integers(0, 4), st.integers(0, 14), st.integers(0, 14),
)  # fmt: skip
def test_what_is_too_old_is_dropped_and_counted(
    made: list[tuple[int, int]], max_lag: int, version: int, oldest_valid: int
) -> None:
    queue = FragmentQueue(1000, max_lag=max_lag, limit=1000)
    lots = [lot(decisions, age) for decisions, age in made]
    for each in lots:
        queue.put(each)
    keep = [each for each in lots if version - each.report.version <= max_lag and each.report.version >= oldest_valid]
    dropped = queue.drop_old(version, oldest_valid)
    assert list(queue.lots) == keep
    assert sorted(map(id, dropped)) == sorted({id(each) for each in lots} - {id(each) for each in queue.lots})
    assert queue.dropped.lots == len(lots) - len(keep)
    assert queue.dropped.decisions + queue.decisions == sum(decisions for decisions, _ in made)


def test_what_lay_on_a_node_that_is_gone_is_dropped() -> None:
    queue = FragmentQueue(10, max_lag=0, limit=10)
    lots = [replace(lot(decisions), node=node) for decisions, node in ((1, "a"), (2, "b"), (4, "a"), (8, "c"))]
    for each in lots:
        queue.put(each)
    assert queue.drop_lost({"b", "c", "d"}) == [lots[0], lots[2]]
    assert queue.lots == (lots[1], lots[3])
    assert (queue.dropped.lots, queue.dropped.decisions) == (2, 5)


def test_what_was_copied_from_a_node_in_time_is_not_lost_with_it() -> None:
    queue = FragmentQueue(10, max_lag=0, limit=10)
    lots = [replace(lot(1), node="a"), replace(lot(2), node="b")]
    for each in lots:
        queue.put(each)
    queue.moved("a", to="head")
    assert queue.lots == (replace(lots[0], node="head"), lots[1])
    assert queue.drop_lost({"head", "b"}) == []


def test_lags_are_of_the_last_update() -> None:
    queue = FragmentQueue(20, max_lag=4, limit=40)
    assert queue.lags() == {}
    for each in (lot(10, 7), lot(3, 5), lot(8, 7), lot(20, 9)):
        queue.put(each)
    queue.take(7)
    assert queue.lags() == {0: 18, 2: 3}
    assert queue.take(9)
    assert queue.lags() == {0: 20}


def test_whole_rounds_are_learned_from_in_the_order_of_runners() -> None:
    queue = FragmentQueue(20, max_lag=0, limit=20)
    lots = [lot(5, runner=runner, round=round) for round, runner in ((0, 2), (0, 1), (1, 1), (1, 3), (1, 2))]
    for each in lots:
        queue.put(each)
    assert [(each.round, each.runner) for each in queue.take(0)] == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    assert len(queue) == 0


def test_forgetting_counts_nothing() -> None:
    queue = FragmentQueue(5, max_lag=0, limit=5)
    queue.put(lot(5))
    queue.clear()
    assert (len(queue), queue.dropped.lots, queue.used.lots) == (0, 0, 0)
