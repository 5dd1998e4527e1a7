"""Advantages at one scale, whatever the task's rewards are: zero mean and unit deviation over a whole update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from avavla_ray.errors import check_known
from avavla_ray.learning.choices import OVER

_EPSILON = 1e-8


def normalise_advantages(
    advantages: Tensor, mask: Tensor, over: str, reduce: Callable[[Tensor], Tensor] = lambda values: values
) -> Tensor:
    """(A - mean) / (standard deviation + 1e-8) where `mask`, 0 elsewhere, entries there being ignored.

    Args:
        advantages: (N, K), of the latent steps of N decisions. mask: (N, K) bool, steps that were taken.
        over: what counts once in mean and (population) deviation: "decisions", whose steps share its weight, so that
            long thought does not outvote short; "steps"; or "none", which leaves the advantages as they are.
        reduce: sums a small float64 tensor over all ranks; called twice on each, even where N is 0. By default there
            is one rank.

    Returns:
        (N, K), of the dtype of `advantages`.

    Raises:
        InputError: no such `over`.
    """
    check_known("normalisation", over, OVER)
    valid = torch.where(mask, advantages.double(), 0.0)
    if over == "none":
        return valid.to(advantages.dtype)
    weight = mask.double()
    if over == "decisions":
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1)
    count, total = reduce(torch.stack([weight.sum(), (weight * valid).sum()]))
    mean = total / count
    deviation = (reduce((weight * (valid - mean).square()).sum()) / count).sqrt()
    return torch.where(mask, (valid - mean) / (deviation + _EPSILON), 0.0).to(advantages.dtype)
