"""The losses of PPO, over latent steps or whatever else was drawn: clipped surrogate and value loss.

How stale data are treated is a switch, `CORRECTIONS`:

    decoupled   clip the ratio to the proximal policy, weight by proximal / behaviour ("Batch size-invariance for
                policy optimization", Hilton et al. 2022, section 3: what one stays near, and what the data came
                from, are two policies)
    naive       clip the ratio to the behaviour policy, no weight (Schulman et al. 2017, equation 7)
    vtrace      the loss of "decoupled" on the advantages of avavla_ray/learning/vtrace.py
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from avavla_ray.errors import check_known
from avavla_ray.learning.choices import CORRECTIONS

# Exponents stay below it, so that sums fit into float32. What is farther has no gradient.
FARTHEST = 80.0


class PolicyLoss(NamedTuple):
    """Scalars, float32. `loss` is what to minimise, the others are diagnostics, detached.

    approx_kl: mean of (ratio - 1) - log ratio, always of the policy against the proximal one, and weighted by truncated
    proximal / behaviour: what an older policy drew and the proximal one would never have drawn says nothing about how
    far that one has moved, and its ratio can be any number. clip_fraction: share of entries whose ratio, the one that
    is clipped, left the clip range. weight: mean truncated importance weight of the loss.
    """

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor
    weight: Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where mask, summed in float64; zero, and differentiable, when the mask is empty."""
    total = torch.where(mask, x, torch.zeros_like(x)).sum(dtype=torch.float64)
    return (total / mask.sum().clamp_min(1)).to(x.dtype)


def policy_loss(
    log_prob: Tensor,
    proximal_log_prob: Tensor,
    behaviour_log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    correction: str = "decoupled",
    max_weight: float = 5.0,
) -> PolicyLoss:
    """Clipped surrogate of a minibatch; all tensors have one shape, any, and entries outside `mask` are ignored.

    Args:
        log_prob: of what was drawn, under the policy being trained; carries the gradient.
        proximal_log_prob: under the policy at the start of this batch's updates.
        behaviour_log_prob: under the policy that acted, possibly older.
        clip: half width of the range around 1 that a ratio is kept in.
        max_weight: truncation of the weight proximal / behaviour.

    Raises:
        InputError: no such correction.
    """
    check_known("correction", correction, CORRECTIONS)
    # Ratios are exponentials of small differences of large sums. In float64 nothing is lost on the way.
    new, proximal, behaviour, gain = (
        torch.where(mask, part.double(), 0.0)
        for part in (log_prob, proximal_log_prob, behaviour_log_prob, advantages)
    )  # fmt: skip
    stale = (proximal - behaviour).clamp_max(math.log(max_weight)).detach()
    if correction == "naive":
        log_ratio, log_weight = new - behaviour, torch.zeros_like(new)
    else:
        log_ratio, log_weight = new - proximal, stale
    ratio, weight = log_ratio.clamp_max(FARTHEST).exp(), log_weight.exp()
    # Weight times ratio, added up before the exponential: what no weight is left of may have any ratio.
    weighted = (log_weight + log_ratio).clamp_max(FARTHEST).exp()
    loss = -masked_mean(torch.minimum(weighted * gain, weight * ratio.clamp(1 - clip, 1 + clip) * gain), mask)
    with torch.no_grad():
        moved = new - proximal
        approx_kl = masked_mean((stale + moved).clamp_max(FARTHEST).exp() - stale.exp() * (1 + moved), mask)
        clip_fraction = masked_mean(((ratio - 1).abs() > clip).double(), mask)
        mean_weight = masked_mean(weight, mask)
    return PolicyLoss(loss.float(), approx_kl.float(), clip_fraction.float(), mean_weight.float())


def value_loss(
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    old_values: Tensor | None = None,
    value_clip: float | None = None,
) -> Tensor:
    """Mean squared error of the critic where `mask`; entries outside are ignored. Scalar, float32.

    Args:
        values: carry the gradient. returns: what they should be. One shape, any.
        old_values: the critic's at the start of this batch's updates; needed with `value_clip`.
        value_clip: the larger of two squares counts: that of the values, and that of the values kept within so much
            of the old ones (PPO2 of OpenAI Baselines; "Implementation Matters in Deep Policy Gradients", Engstrom et
            al. 2020, section 3). None: the first alone.

    Raises:
        ValueError: a value clip without old values.
    """
    predicted, target = torch.where(mask, values.double(), 0.0), torch.where(mask, returns.double(), 0.0)
    squares = (predicted - target).square()
    if value_clip is not None:
        if old_values is None:
            raise ValueError("a value clip needs the old values to clip around")
        old = torch.where(mask, old_values.double(), 0.0)
        near = old + (predicted - old).clamp(-value_clip, value_clip)
        squares = torch.maximum(squares, (near - target).square())
    return masked_mean(squares, mask).float()
