"""The composite reward of a latent step (arXiv 2606.15099, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from avavla_ray.learning.gae import valid_steps


def latent_change(z: Tensor) -> Tensor:
    """(..., K + 1, Z) -> (..., K): mean over Z of (z_{k+1} - z_k)^2."""
    return (z[..., 1:, :] - z[..., :-1, :]).square().mean(dim=-1)


def composite_reward(
    task_reward: Tensor,
    z: Tensor,
    entropy: Tensor,
    steps: Tensor,
    *,
    lambda_entropy: float = 0.01,
    lambda_delta: float = 0.1,
    compute_cost: float = 0.0,
) -> Tensor:
    """r_task at the decision's last latent step, minus penalties on entropy and on the latent's movement at each.

    With a `compute_cost` every latent step taken also costs so much, whatever it does: what a policy that decides by
    itself when to stop weighs another step against. The penalties belong to the reward alone; the loss has no such
    terms.

    Args:
        task_reward: (T,). z: (T, K + 1, Z). entropy: (T, K), per-dimension, clamped at 0. steps: (T,), at least 1.

    Returns:
        (T, K), zero at steps that were not taken.
    """
    valid = valid_steps(steps, entropy.shape[1])
    penalty = lambda_entropy * entropy + lambda_delta * latent_change(z) + compute_cost
    # z is zero past the last step, so the movement there is an artefact: select, don't multiply.
    reward = torch.where(valid, -penalty, torch.zeros_like(penalty))
    return reward.scatter_add(1, (steps - 1)[:, None], task_reward.to(reward.dtype)[:, None])
