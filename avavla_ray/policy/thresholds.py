"""Exit thresholds: one for all, one for each latent step, or a row of them for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from avavla_ray.errors import InputError, check_fraction

Threshold: TypeAlias = float | Sequence[float] | Tensor


def exit_limits(threshold: Threshold, batch: int, max_steps: int, device: torch.device) -> float | Tensor:
    """What the gate's scores are compared with.

    Args:
        threshold: a number; K - 1 of them, for the scores after latent steps 1..K-1 (nobody is asked after step K); or
            a tensor (B, K - 1).

    Returns:
        the number, or (B, K - 1) float32 on `device`.

    Raises:
        InputError: a number outside [0, 1], or not so many of them.
    """
    if isinstance(threshold, Tensor):
        limits = threshold
    elif isinstance(threshold, Sequence):
        limits = torch.tensor([tuple(threshold)], dtype=torch.float32).expand(batch, -1)
    else:
        check_fraction("exit threshold", threshold)
        return threshold
    if tuple(limits.shape) != (batch, max_steps - 1):
        raise InputError(
            f"exit thresholds of shape {tuple(limits.shape)}: a policy of {max_steps} latent steps is asked after "
            f"the first {max_steps - 1}, so that {batch} decisions need ({batch}, {max_steps - 1})"
        )
    if not bool(((limits >= 0) & (limits <= 1)).all()):
        raise InputError(f"exit thresholds {limits.unique().tolist()} are not all in [0, 1]")
    return limits.to(device=device, dtype=torch.float32)
