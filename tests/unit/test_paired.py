"""Paired comparisons: the exact test, the interval, and what counts as a pair."""

from __future__ import annotations

import math

import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.paired import Paired, compare_outcomes, exact_mcnemar, mcnemar, paired_interval


def episode(task, state, success, error=None):
    return EpisodeRecord("threshold_0.55", task, state, success, 8, [1], [1.0], error)


@pytest.mark.parametrize("only_a", range(7))
@pytest.mark.parametrize("only_b", range(7))
def test_the_p_value_is_the_share_of_coin_throws_as_uneven_or_more(only_a, only_b):
    n = only_a + only_b
    throws = [math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(only_a - only_b)]
    assert exact_mcnemar(only_a, only_b) == pytest.approx(sum(throws) / 2**n)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Newcombe 1998, table II, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((0, 0, 0, 0), -1.0, 1.0),
    ],
)
def test_the_interval_is_the_published_one(cells, low, high):
    assert paired_interval(*cells) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_turns_with_its_sides_and_holds_the_difference():
    for cells in ((5, 3, 1, 2), (50, 0, 0, 0), (0, 50, 0, 0), (10, 4, 9, 3), (0, 0, 0, 4)):
        low, high = paired_interval(*cells)
        both, only_a, only_b, neither = cells
        assert paired_interval(both, only_b, only_a, neither) == pytest.approx((-high, -low))
        assert -1 <= low <= (only_a - only_b) / sum(cells) <= high <= 1
        assert low < high, "no number of pairs is certain"


def test_what_both_have_finished_is_paired():
    a = [episode(0, 0, True), episode(0, 1, True), episode(1, 0, False), episode(1, 1, False), episode(2, 0, True)]
    b = [episode(1, 1, True), episode(0, 0, True), episode(0, 1, False), episode(1, 0, False)]
    b.append(episode(2, 0, False, error="crash"))
    found = mcnemar(a, b)
    assert found == Paired(both=1, only_a=1, only_b=1, neither=1)
    assert (found.pairs, found.difference, found.p_value) == (4, 0.0, 1.0)
    assert mcnemar([], b).difference is None


def test_two_episodes_from_one_start_are_refused():
    with pytest.raises(InputError, match="two episodes of task 0, initial state 3"):
        mcnemar([episode(0, 3, True), episode(0, 3, False)], [])


def test_a_clear_winner_is_found():
    found = compare_outcomes(dict.fromkeys(range(20), True), {i: i < 10 for i in range(20)})
    assert (found.only_a, found.only_b) == (10, 0)
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.ci95[0] > 0
