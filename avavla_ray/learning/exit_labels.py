"""Targets of exit-gate calibration, stage 4 of arXiv 2606.15099."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def value_gains(values: Tensor, lookahead: int = 3) -> Tensor:
    """What thinking on would gain within `lookahead` steps.

    Args:
        values: (B, K + 1), V(z_0) to V(z_K) of a full-depth unroll.

    Returns:
        (B, K - 1): of z_1 to z_{K-1}, the states that the gate is asked about. After step K nobody is asked: that
        answer, always "leave", would teach a gate which is not told the step to leave too early where earlier states
        look alike. Where fewer than `lookahead` steps remain, the last state stands in for the one beyond it.
    """
    K = values.shape[1] - 1
    now = torch.arange(1, K, device=values.device)
    later = (now + lookahead).clamp_max(K)
    return values[:, later] - values[:, now]


def exit_labels(values: Tensor, delta: float = 0.05, lookahead: int = 3) -> Tensor:
    """1 where thinking on would gain less than `delta` of value within `lookahead` steps: (B, K + 1) -> (B, K - 1)
    float32, as `value_gains`."""
    return (value_gains(values, lookahead) < delta).to(torch.float32)


def exit_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of the gate, and share of labels that say exit: (B, K - 1) both -> two scalars.

    Both are 0 for K = 1.
    """
    if not labels.numel():
        return 0.0 * logits.sum(), labels.new_zeros(())
    return F.binary_cross_entropy_with_logits(logits, labels), labels.mean()
