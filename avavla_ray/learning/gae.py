"""Generalised advantage estimation over latent steps, a two-level semi-Markov chain (arXiv 2606.15099, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


def valid_steps(steps: Tensor, K: int) -> Tensor:
    """(T,) latent steps taken -> (T, K) bool, True for the steps that were."""
    return torch.arange(K, device=steps.device) < steps[:, None]


class Chain(NamedTuple):
    """Latent steps of T decisions as links of chains; all (T, K), float64 but for the masks, zero at invalid steps.

    rewards, values: of the step. discount: from the step to what follows it. following: the value of what follows.
    valid, last: steps that were taken, and the last one of each decision. goes_on: a link follows in this batch.
    """

    rewards: Tensor
    values: Tensor
    discount: Tensor
    following: Tensor
    valid: Tensor
    last: Tensor
    goes_on: Tensor


def lay_out(
    rewards: Tensor,
    values: Tensor,
    steps: Tensor,
    next_value: Tensor,
    duration: Tensor,
    terminated: Tensor,
    chain_end: Tensor,
    gamma: float,
    latent_discount: float,
) -> Chain:
    """What each latent step leads to; arguments and errors as of `semi_markov_gae`."""
    T, K = rewards.shape
    if T == 0 or int(steps.min()) < 1 or int(steps.max()) > K:
        raise ValueError(f"every decision needs between 1 and {K} latent steps, got {steps.tolist()}")
    valid = valid_steps(steps, K)
    last = valid & ~pad(valid[:, 1:], (0, 1))
    # Selected, not multiplied: what is stored past the last step need not be a number.
    rewards, values = (torch.where(valid, part[:, :K].double(), 0.0) for part in (rewards, values))
    beyond = torch.where(terminated, 0.0, next_value.double())
    discount = torch.where(last, (gamma ** duration.double())[:, None], latent_discount * valid)
    following = torch.where(last, beyond[:, None], pad(values[:, 1:], (0, 1)))
    goes_on = valid & ~(last & (chain_end | terminated)[:, None])
    return Chain(rewards, values, discount, following, valid, last, goes_on)


def backward_sums(delta: Tensor, decay: Tensor, chain: Chain) -> Tensor:
    """x = delta + decay * (x of the link that follows, 0 where none does), over every chain backwards; all (T, K)."""
    T, K = delta.shape
    within = torch.where(chain.last | ~chain.valid, 0.0, decay)
    to_next = torch.where(chain.last & chain.goes_on, decay, 0.0).sum(dim=1)

    # Inside each decision, all decisions at once: sums, and how much of what follows the last step gets back to step k.
    inside, share = torch.zeros_like(delta), torch.ones_like(delta)
    inside[:, K - 1] = delta[:, K - 1]
    for k in reversed(range(K - 1)):
        inside[:, k] = delta[:, k] + within[:, k] * inside[:, k + 1]
        share[:, k] = torch.where(chain.last[:, k], 1.0, within[:, k] * share[:, k + 1])

    # One pass over decisions: the sum at a decision's first step is what the decision before gets.
    heads, reach = inside[:, 0].tolist(), (to_next * share[:, 0]).tolist()
    upstream = [0.0] * T
    head = 0.0
    for t in reversed(range(T)):
        upstream[t] = head
        head = heads[t] + reach[t] * head
    incoming = to_next * torch.tensor(upstream, dtype=delta.dtype, device=delta.device)
    return torch.where(chain.valid, inside + share * incoming[:, None], 0.0)


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
    chain = lay_out(rewards, values, steps, next_value, duration, terminated, chain_end, gamma, latent_discount)
    delta = chain.rewards + chain.discount * chain.following - chain.values
    advantages = backward_sums(delta, lambda_ * chain.discount, chain)
    return advantages.float(), (advantages + chain.values).float()
