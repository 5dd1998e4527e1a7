"""Tasks are dealt in the proportions that weights say, evenly at any time, and slots keep theirs where they can."""

from __future__ import annotations

from collections import Counter

import pytest

from actors.dealing import WeightedDealer


def dealt(
    tasks: int, slots: int, turns: int, weights: dict[int, float], playable: tuple[int, ...] | None = None
) -> list[list[int]]:
    """By turn, by slot."""
    dealers = [WeightedDealer(range(tasks), slot, slots) for slot in range(slots)]
    return [[dealer.deal(playable or tuple(range(tasks)), weights) for dealer in dealers] for _ in range(turns)]


@pytest.mark.parametrize("slots", [1, 2, 8, 13, 40])
def test_shares_are_those_of_the_weights(slots: int) -> None:
    weights = {0: 1.0, 1: 0.2, 2: 1.0, 3: 0.2, 4: 0.6}
    turns = 600 // slots
    counts = Counter(task for turn in dealt(5, slots, turns, weights) for task in turn)
    for task, weight in weights.items():
        assert counts[task] == pytest.approx(turns * slots * weight / 3, abs=0.02 * turns * slots + 1)


def test_at_any_time_the_slots_share_out_the_tasks_as_evenly_as_whole_numbers_let_them() -> None:
    weights = {0: 1.0, 1: 0.2, 2: 1.0, 3: 0.2, 4: 0.6}
    for turn in dealt(5, 30, 20, weights):
        counts = Counter(turn)
        assert all(abs(counts[task] - 10 * weight) <= 1 for task, weight in weights.items())


def test_a_slot_keeps_its_task_unless_it_stands_on_a_border() -> None:
    turns = dealt(5, 30, 20, {0: 1.0, 1: 0.2, 2: 1.0, 3: 0.2, 4: 0.6})
    played = [{turn[slot] for turn in turns} for slot in range(30)]
    assert sum(len(tasks) > 1 for tasks in played) <= 4
    assert all(len(tasks) <= 2 for tasks in played)


def test_equal_weights_are_turns_and_unnamed_tasks_weigh_one() -> None:
    turns = dealt(4, 4, 5, {0: 1.0, 2: 1.0})
    assert turns == [[0, 1, 2, 3]] * 5
    counts = Counter(task for turn in dealt(4, 1, 500, {0: 3.0}) for task in turn)
    assert counts[0] == pytest.approx(250, abs=5)
    assert counts[3] == pytest.approx(250 / 3, abs=5)


@pytest.mark.parametrize("weights", [{}, {0: 0.5}])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("present", [[0], [4], [1, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]])
def test_runners_that_are_left_play_all_tasks(present: list[int], groups: bool, weights: dict[int, float]) -> None:
    tasks, mates = tuple(range(10)), 1 if groups else 2
    runners = [[WeightedDealer(tasks, r * mates + i, 5 * mates, mates) for i in range(mates)] for r in range(5)]
    for _ in range(3):
        for dealers in runners:
            for dealer in dealers:
                dealer.deal(tasks, weights)
    left = [runners[runner] for runner in present]
    counts = Counter[int]()
    for _ in range(40):
        for place, dealers in enumerate(left):
            for dealer in dealers:
                dealer.stand(place, len(left))
                counts[dealer.deal(tasks, weights)] += 1
    assert set(counts) == set(tasks)
    assert counts[0] / counts.total() == pytest.approx(0.5 / 9.5 if weights else 0.1, abs=0.02)


def test_what_is_quarantined_or_weighs_nothing_is_not_dealt() -> None:
    weights = {0: 1.0, 1: 0.5, 2: 2.0, 3: 0.0}
    tasks = {task for turn in dealt(4, 3, 100, weights, playable=(0, 1, 3)) for task in turn}
    assert tasks == {0, 1}
    assert {task for turn in dealt(4, 3, 9, weights, playable=(3,)) for task in turn} == {3}
