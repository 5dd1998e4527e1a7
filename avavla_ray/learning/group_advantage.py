"""Advantages without a critic: an episode against the others from the same start (GRPO).

"DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", Shao et al. 2024, section 4.1.2
(outcome supervision).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_EPSILON = 1e-6


def group_advantages(scores: Tensor, groups: Tensor) -> Tensor:
    """(score - group mean) / (group standard deviation + 1e-6) of each episode.

    Args:
        scores: (G,), of G episodes. groups: (G,) int64, equal for episodes from the same start, in any order.

    Returns:
        (G,), of the dtype of `scores`; exactly 0 in a group of one or of equal scores, which say nothing of what was
        better. The deviation is the population's.

    Raises:
        ValueError: an episode without a group (a negative number).
    """
    mean, first = _within(groups)
    exact = scores.double()
    differ = mean((exact != first(exact)).double()) > 0
    centred = exact - mean(exact)
    deviation = mean(centred.square()).sqrt()
    return torch.where(differ, centred / (deviation + _EPSILON), 0.0).to(scores.dtype)


def group_differences(values: Tensor, groups: Tensor) -> Tensor:
    """value - group mean of each episode, at its own scale; arguments and errors as of `group_advantages`."""
    mean, _ = _within(groups)
    exact = values.double()
    return (exact - mean(exact)).to(values.dtype)


def _within(groups: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The mean over each episode's group of float64 numbers (G,), and the number of one member of it."""
    if bool((groups < 0).any()):
        raise ValueError(f"every episode needs a group to be compared in, got {groups.tolist()}")
    _, member = groups.unique(return_inverse=True)  # (G,) in 0..number of groups
    number = int(member.max()) + 1 if len(member) else 0

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(number).index_add_(0, member, values)
        return (sums / member.bincount(minlength=number))[member]

    def first(values: Tensor) -> Tensor:
        return values.new_zeros(number).scatter_(0, member, values)[member]

    return mean, first
