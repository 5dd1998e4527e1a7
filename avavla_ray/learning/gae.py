"""Generalised advantage estimation over latent steps, a two-level semi-Markov chain (arXiv 2606.15099, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_steps(steps: Tensor, K: int) -> Tensor:
    """(T,) latent steps taken -> (T, K) bool, True for the steps that were."""
    return torch.arange(K, device=steps.device) < steps[:, None]


def semi_markov_gae(
    rewards: Tensor,
    values: Tensor,
    steps: Tensor,
    next_value: Tensor,
    duration: Tensor,
    terminated: Tensor,
    chain_end: Tensor,
    *,
    gamma: float = 0.99,
    lambda_: float = 0.95,
    latent_discount: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of every valid latent step.

    Between latent steps of one decision no environment time passes (`latent_discount`); from a decision's last latent
    step to the next decision's first, `duration` environment steps do (gamma ** duration). The trace decays by
    lambda_ at every link, of either kind.

    Args:
        rewards: (T, K), of latent step k. values: (T, K) or wider, V(z_k); entries at or past `steps` are ignored.
        steps: (T,), latent steps taken, at least 1 each.
        next_value: (T,), V of the next observation's z_0; ignored where `terminated`.
        duration: (T,), environment steps that the decision's chunk ran.
        terminated: (T,) bool, the episode ended by success: no bootstrap.
        chain_end: (T,) bool, row t + 1 does not continue row t (end of an episode, or a fragment's cut): bootstrap
            from `next_value` unless terminated, and let no later advantage flow back.

    Returns:
        (T, K) float32 each, zero at invalid steps; returns = advantages + values.

    Raises:
        ValueError: a decision without a latent step has no place in the chain.
    """
    T, K = rewards.shape
    if T == 0 or int(steps.min()) < 1 or int(steps.max()) > K:
        raise ValueError(f"every decision needs between 1 and {K} latent steps, got {steps.tolist()}")
    valid = valid_steps(steps, K)
    rewards, values = rewards.double() * valid, values[:, :K].double() * valid
    continuation = gamma ** duration.double() * (~terminated)
    last = valid & ~torch.nn.functional.pad(valid[:, 1:], (0, 1))

    # What follows V(z_k): the next latent state, or from the last one the next observation's.
    following = latent_discount * torch.nn.functional.pad(values[:, 1:], (0, 1))
    following = torch.where(last, (continuation * next_value.double())[:, None], following)
    delta = (rewards + following - values) * valid

    # Discounted sums inside each decision, all decisions at once.
    decay = latent_discount * lambda_
    inside = torch.zeros_like(delta)
    tail = torch.zeros_like(delta[:, 0])
    for k in reversed(range(K)):
        tail = delta[:, k] + decay * tail
        inside[:, k] = tail

    # One backward pass over decisions: the advantage at z_0 is the inside sum plus what flows back from the next row.
    link = lambda_ * continuation * (~chain_end)
    reach = (link * decay ** (steps.double() - 1)).tolist()
    heads = inside[:, 0].tolist()
    upstream = [0.0] * T
    head = 0.0
    for t in reversed(range(T)):
        upstream[t] = head
        head = heads[t] + reach[t] * head
    incoming = link * torch.tensor(upstream, dtype=torch.float64, device=rewards.device)
    distance = (steps[:, None] - 1 - torch.arange(K, device=steps.device)).clamp_min(0).double()
    advantages = (inside + decay**distance * incoming[:, None]) * valid
    return advantages.float(), (advantages + values).float()
