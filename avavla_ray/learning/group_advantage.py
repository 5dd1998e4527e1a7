"""Advantages without a critic: an episode against the others from the same start (GRPO).

"DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", Shao et al. 2024, section 4.1.2
(outcome supervision).
"""

from __future__ import annotations

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
    if bool((groups < 0).any()):
        raise ValueError(f"every episode needs a group to be compared in, got {groups.tolist()}")
    _, member = groups.unique(return_inverse=True)  # (G,) in 0..number of groups
    number = int(member.max()) + 1 if len(member) else 0

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(number).index_add_(0, member, values)
        return (sums / member.bincount(minlength=number))[member]

    exact = scores.double()
    first = exact.new_zeros(number).scatter_(0, member, exact)  # one score of each group
    differ = mean((exact != first[member]).double()) > 0
    centred = exact - mean(exact)
    deviation = mean(centred.square()).sqrt()
    return torch.where(differ, centred / (deviation + _EPSILON), 0.0).to(scores.dtype)
