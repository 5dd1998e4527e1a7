"""The PPO loss over latent steps: clipped surrogate, decoupled from the policy that acted (arXiv 2606.15099; the
decoupling is that of "Batch size-invariance for policy optimization", Hilton et al. 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PPOLoss(NamedTuple):
    """Scalars. `total` is what to minimise; the others are parts of it and diagnostics, detached.

    approx_kl: mean of (ratio - 1) - log ratio, against the proximal policy. clip_fraction: share of steps whose ratio
    left the clip range. weight: mean truncated importance weight.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor
    weight: Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where mask; zero, and differentiable, when the mask is empty."""
    return torch.where(mask, x, torch.zeros_like(x)).sum() / mask.sum().clamp_min(1)


def ppo_loss(
    log_prob: Tensor,
    proximal_log_prob: Tensor,
    behaviour_log_prob: Tensor,
    advantages: Tensor,
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    value_coefficient: float = 0.5,
    max_weight: float = 2.0,
) -> PPOLoss:
    """Loss of a minibatch of latent steps; all arguments have one shape, entries outside `mask` are ignored.

    Args:
        log_prob: of the stored update under the policy being trained (carries gradients, as `values` does).
        proximal_log_prob: under the policy at the start of this batch's updates: centre of the clip range.
        behaviour_log_prob: under the policy that acted, possibly older: corrected for by the importance weight
            min(proximal / behaviour, max_weight).
    """
    zero = torch.zeros_like(log_prob)
    log_ratio = torch.where(mask, log_prob - proximal_log_prob, zero)
    weight = torch.where(mask, proximal_log_prob - behaviour_log_prob, zero).exp().clamp_max(max_weight).detach()
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    policy = -masked_mean(weight * surrogate, mask)
    value = masked_mean((values - returns).square(), mask)
    with torch.no_grad():
        approx_kl = masked_mean(ratio - 1 - log_ratio, mask)
        clip_fraction = masked_mean(((ratio - 1).abs() > clip).to(ratio.dtype), mask)
        mean_weight = masked_mean(weight, mask)
    total = policy + value_coefficient * value
    return PPOLoss(total, policy.detach(), value.detach(), approx_kl, clip_fraction, mean_weight)
