"""group_advantages against one group after the other."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.learning.group_advantage import group_advantages


def reference(scores: list[float], groups: list[int]) -> list[float]:
    advantages = []
    for score, group in zip(scores, groups, strict=True):
        others = [other for other, name in zip(scores, groups, strict=True) if name == group]
        if min(others) == max(others):
            advantages.append(0.0)
        else:
            advantages.append((score - statistics.fmean(others)) / (statistics.pstdev(others) + 1e-6))
    return advantages


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-40, 40), st.sampled_from([0, 1, 7, 10**12])), min_size=0, max_size=20
    )
)  # fmt: skip
def test_agrees_with_one_group_after_the_other(episodes):
    scores, groups = [score / 10 for score, _ in episodes], [group for _, group in episodes]
    got = group_advantages(torch.tensor(scores), torch.tensor(groups, dtype=torch.int64))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(reference(scores, groups)), atol=1e-4, rtol=1e-4)


def test_successes_of_a_group_by_hand():
    """One success of four stands out by sqrt(3); the other group's half and half by 1."""
    scores = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    groups = torch.tensor([5, 5, 2, 5, 2, 5])
    expected = torch.tensor([math.sqrt(3), -1 / math.sqrt(3), -1.0, -1 / math.sqrt(3), 1.0, -1 / math.sqrt(3)])
    torch.testing.assert_close(group_advantages(scores, groups), expected, atol=1e-4, rtol=0)


def test_equal_scores_and_single_episodes_teach_nothing():
    """Exactly: the mean of three times 0.1 is not 0.1, and the deviation of that is no difference."""
    scores, groups = torch.tensor([0.1, 0.1, 0.1, 123.4]), torch.tensor([0, 0, 0, 1])
    assert group_advantages(scores.double(), groups).tolist() == [0.0] * 4


def test_a_score_that_is_no_number_is_seen_in_its_group_alone():
    got = group_advantages(torch.tensor([math.nan, 1.0, 2.0, 1.0]), torch.tensor([0, 0, 1, 1]))
    assert got.isnan().tolist() == [True, True, False, False]


def test_an_episode_without_a_group_is_refused():
    with pytest.raises(ValueError, match="group"):
        group_advantages(torch.tensor([1.0, 0.0]), torch.tensor([3, -1]))
