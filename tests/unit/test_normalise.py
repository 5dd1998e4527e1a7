"""normalise_advantages against lists of numbers, on one rank and on several."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import actors.settings
from avavla_ray.errors import InputError
from avavla_ray.learning.normalise import OVER, normalise_advantages


def reference(rows: list[list[float]], over: str) -> list[list[float]]:
    """`rows`: the valid advantages of each decision. Every decision, or every step, is one vote."""
    votes = [(value, 1 / len(row) if over == "decisions" else 1.0) for row in rows for value in row]
    total = sum(weight for _, weight in votes)
    mean = sum(weight * value for value, weight in votes) / total
    deviation = math.sqrt(sum(weight * (value - mean) ** 2 for value, weight in votes) / total)
    return [[(value - mean) / (deviation + 1e-8) for value in row] for row in rows]


def batch(rows: list[list[float]], K: int = 4, filler: float = math.nan):
    """(N, K) advantages and mask of so many valid steps each, anything behind them."""
    advantages, mask = torch.full((len(rows), K), filler), torch.zeros(len(rows), K, dtype=torch.bool)
    for n, row in enumerate(rows):
        advantages[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), True
    return advantages, mask


decisions = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4), min_size=1, max_size=10)


@settings(max_examples=200, deadline=None)
@given(decisions, st.sampled_from(["decisions", "steps"]))
def test_agrees_with_a_walk_over_the_list(rows, over):
    advantages, mask = batch(rows)
    got = normalise_advantages(advantages, mask, over)
    assert got.dtype == torch.float32
    assert not got[~mask].any()
    spread = max(value for row in rows for value in row) - min(value for row in rows for value in row)
    if spread == 0:
        assert got.abs().max() < 1e-5
    elif spread > 1e-3:
        expected, _ = batch(reference(rows, over), filler=0.0)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_long_thought_does_not_outvote_short():
    """One decision of three steps at 3, one of a single step at 1: the middle is 2, or 2.5 if steps are counted."""
    advantages, mask = batch([[3.0, 3.0, 3.0], [1.0]])
    by_decision = normalise_advantages(advantages, mask, "decisions")
    torch.testing.assert_close(by_decision[mask], torch.tensor([1.0, 1.0, 1.0, -1.0]))
    by_step = normalise_advantages(advantages, mask, "steps")
    torch.testing.assert_close(by_step[mask], torch.tensor([1.0, 1.0, 1.0, -3.0]) / math.sqrt(3))


def test_none_changes_nothing_but_what_is_masked():
    advantages, mask = batch([[3.0, -2.0], [1.0]])
    untouched = normalise_advantages(advantages, mask, "none")
    torch.testing.assert_close(untouched[mask], torch.tensor([3.0, -2.0, 1.0]))
    assert not untouched[~mask].any()


def test_the_sums_are_in_float64():
    """Half of the advantages at 1e4, half a thousandth above: float32 sums of squares would see noise."""
    advantages = torch.full((2000, 1), 1e4)
    advantages[::2] += 2.0**-10
    got = normalise_advantages(advantages, torch.ones(2000, 1, dtype=torch.bool), "decisions")
    torch.testing.assert_close(got.abs(), torch.ones(2000, 1), atol=1e-4, rtol=0)


class Ranks:
    """Ranks as threads, whose `reduce` sums over them."""

    def __init__(self, world: int) -> None:
        self._barrier, self._given = threading.Barrier(world, timeout=20), [torch.zeros(0)] * world

    def reduce_of(self, rank: int):
        def reduce(values: torch.Tensor) -> torch.Tensor:
            self._given[rank] = values.clone()
            self._barrier.wait()
            total = torch.stack(self._given).sum(dim=0)
            self._barrier.wait()
            return total

        return reduce


@pytest.mark.parametrize("over", ["decisions", "steps"])
def test_ranks_normalise_over_all_of_them(over):
    """Also where one of them has nothing."""
    rows = [[1.0, 5.0, -2.0], [0.5], [3.0, 3.0], [-7.0, 1.0, 2.0, 4.0], [0.0]]
    whole = normalise_advantages(*batch(rows), over)
    shares, ranks = [rows[:2], [], rows[2:]], Ranks(3)
    parts: list[torch.Tensor] = [torch.zeros(0)] * 3

    def run(rank: int) -> None:
        parts[rank] = normalise_advantages(*batch(shares[rank]), over, ranks.reduce_of(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_decision_without_a_valid_step_has_no_vote():
    advantages, mask = batch([[], [1.0, 1.0], [3.0]])
    got = normalise_advantages(advantages, mask, "decisions")
    torch.testing.assert_close(got[mask], torch.tensor([-1.0, -1.0, 1.0]))


def test_nothing_valid_is_zeros():
    for over in OVER:
        assert not normalise_advantages(torch.full((2, 3), math.nan), torch.zeros(2, 3, dtype=torch.bool), over).any()


def test_what_is_no_number_inside_the_mask_is_seen():
    advantages, mask = batch([[1.0, math.nan], [2.0]])
    assert normalise_advantages(advantages, mask, "decisions")[mask].isnan().all()


def test_the_settings_offer_the_same():
    assert actors.settings.OVER == OVER


def test_refuses_what_it_does_not_know():
    with pytest.raises(InputError, match="normalisation"):
        normalise_advantages(*batch([[1.0]]), "episodes")
