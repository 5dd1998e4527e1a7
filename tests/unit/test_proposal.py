"""Replaying the gate offline: against a loop over decisions, and what it proposes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.proposal import (
    NOTE,
    exit_steps,
    fill_gaps,
    proposal_table,
    recorded_scores,
    threshold_for,
)

DEPTH = 5


def scores_of(decisions, seed=0):
    """Mostly rising, as of a gate that grows sure."""
    drawn = np.random.default_rng(seed)
    return np.round(np.clip(np.linspace(0.2, 0.9, DEPTH) + drawn.normal(0, 0.2, (decisions, DEPTH)), 0, 1), 4)


def record(scores, task=0, error=None):
    return EpisodeRecord(
        "depth_5", task, 0, True, 8, [DEPTH] * len(scores), [1.0] * len(scores), error, scores=scores.tolist()
    )


def slow_steps(row, thresholds):
    """As the policy does it: ask after every step but the last."""
    for step in range(1, len(row)):
        if row[step - 1] > thresholds[step - 1]:
            return step
    return len(row)


grid = st.integers(0, 100).map(lambda value: value / 100)


@given(st.integers(0, 1000), st.one_of(grid, st.tuples(grid, grid, grid, grid)))
def test_the_replay_is_the_loop(seed, threshold):
    scores = scores_of(20, seed)
    each = threshold if isinstance(threshold, tuple) else (threshold,) * (DEPTH - 1)
    expected = [slow_steps(row, each) for row in scores]
    assert exit_steps(scores, ExitSetting(exit_threshold=threshold)).tolist() == expected


def test_the_proposed_threshold_is_the_highest_within_the_steps():
    scores = scores_of(200)
    threshold = threshold_for(scores, 2.5)
    assert exit_steps(scores, ExitSetting(exit_threshold=threshold)).mean() <= 2.5
    assert exit_steps(scores, ExitSetting(exit_threshold=round(threshold + 0.01, 2))).mean() > 2.5
    assert threshold_for(scores, 5.0) == 1.0
    assert threshold_for(scores, 0.5) == 0.0, "nobody leaves before the first step"


def test_gaps_are_filled_where_the_means_are_farthest_apart():
    scores = scores_of(500)
    mean = {t: exit_steps(scores, ExitSetting(exit_threshold=t)).mean() for t in (0.1, 0.9, 0.95)}
    (added,) = fill_gaps(scores, (0.1, 0.9, 0.95), 1)
    assert 0.1 < added < 0.9
    found = exit_steps(scores, ExitSetting(exit_threshold=added)).mean()
    assert found == pytest.approx((mean[0.1] + mean[0.9]) / 2, abs=0.15)
    assert len(set(fill_gaps(scores, (0.1, 0.9), 4)) - {0.1, 0.9}) == 4
    assert fill_gaps(np.full((3, DEPTH), 0.5), (0.1, 0.2), 3) == (), "no threshold between them changes anything"


def test_a_table_says_that_it_is_no_result():
    table = proposal_table(scores_of(10), (0.5, 0.3, 0.5))
    assert NOTE in table
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["0.30", "0.50"]


def test_records_without_all_scores_are_refused():
    with pytest.raises(InputError, match="no gate scores"):
        recorded_scores([record(np.zeros((0, DEPTH)))], DEPTH)
    with pytest.raises(InputError, match="another depth"):
        recorded_scores([record(scores_of(3)[:, :2])], DEPTH)
    assert recorded_scores([record(scores_of(3)), record(scores_of(2), error="died")], DEPTH).shape == (3, DEPTH)
