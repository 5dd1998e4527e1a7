"""What one update learns from: fragments turned into tensors, with rewards, advantages and proximal log-probabilities.

Letters: N decisions of all fragments end to end, K latent steps, Z, U, E, O widths as in avavla_ray/policy/config.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.settings import PPOSettings
from avavla_ray.learning.fragment import Fragment, chain_ends, concatenate
from avavla_ray.learning.gae import semi_markov_gae, valid_steps
from avavla_ray.learning.rewards import composite_reward
from avavla_ray.policy.policy import AvaVlaPolicy

# Sum of a small tensor over all ranks.
Reduce = Callable[[Tensor], Tensor]


class LatentBatch(NamedTuple):
    """N decisions with their latent trajectories; index the first axis to take a minibatch.

    z (N, K+1, Z), u (N, K, U), encoding (N, E), tokens (N, O, Z): as stored by the rollout.
    behaviour_log_prob (N, K): of u when it was drawn. proximal_log_prob (N, K): under the weights that this update
    starts from. advantages, returns (N, K). mask (N, K) bool: latent steps that were taken.
    """

    z: Tensor
    u: Tensor
    encoding: Tensor
    tokens: Tensor
    behaviour_log_prob: Tensor
    proximal_log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor

    def rows(self, index: Tensor) -> LatentBatch:
        return LatentBatch(*(part[index] for part in self))


def replay(policy: AvaVlaPolicy, z: Tensor, u: Tensor, encoding: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities (N, K) of the stored updates under `policy`; zero outside the mask, which is not computed."""
    K = u.shape[1]
    encodings = encoding[:, None].expand(-1, K, -1)
    log_prob, _ = policy.log_prob_entropy(z[:, :-1][mask], u[mask], encodings[mask])
    return torch.zeros_like(mask, dtype=log_prob.dtype).masked_scatter(mask, log_prob)


@torch.no_grad()
def make_batch(
    fragments: list[Fragment], policy: AvaVlaPolicy, settings: PPOSettings, reduce: Reduce
) -> tuple[LatentBatch, dict[str, Tensor]]:
    """Rewards, values and advantages under the present critic, and proximal log-probabilities under the present policy.

    Args:
        policy: in evaluation mode, so that the first ratio of the update is 1 to rounding.
        reduce: sums over ranks; advantages are normalised over the valid latent steps of all of them.

    Returns:
        The batch, and sums (not means) over this rank's valid latent steps and decisions, for metrics.
    """
    joined, device = concatenate(fragments), next(policy.parameters()).device

    def tensor(array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=device)

    z, u, encoding, tokens = tensor(joined.z), tensor(joined.u), tensor(joined.encoding), tensor(joined.tokens)
    steps, entropy = tensor(joined.steps), tensor(joined.entropy)
    mask = valid_steps(steps, u.shape[1])
    rewards = composite_reward(
        tensor(joined.reward), z, entropy, steps,
        lambda_entropy=settings.lambda_entropy, lambda_delta=settings.lambda_delta,
    )  # fmt: skip
    values = policy.value(z[:, :-1])
    advantages, returns = semi_markov_gae(
        rewards, values, steps, policy.value(tensor(joined.next_z)), tensor(joined.duration),
        tensor(joined.terminated), tensor(chain_ends(fragments)),
        gamma=settings.gamma, lambda_=settings.gae_lambda, latent_discount=settings.latent_discount,
    )  # fmt: skip
    behaviour = tensor(joined.log_prob)
    proximal = replay(policy, z, u, encoding, mask)
    batch = LatentBatch(
        z, u, encoding, tokens, behaviour, proximal, _normalise(advantages, mask, reduce), returns, mask
    )
    valid_returns, residual = returns[mask].double(), (returns - values)[mask].double()
    sums = {
        "latent_steps": mask.sum(), "decisions": tensor(np.array(len(joined))),
        "entropy": entropy[mask].sum(), "reward": rewards.sum(), "env_steps": tensor(joined.duration).sum(),
        "returns": valid_returns.sum(), "returns_squared": valid_returns.square().sum(),
        "residual": residual.sum(), "residual_squared": residual.square().sum(),
    }  # fmt: skip
    return batch, sums


def explained_variance(sums: dict[str, float]) -> float:
    """1 - Var(returns - values) / Var(returns), from the sums of all ranks; 0 where returns don't vary."""
    n = sums["latent_steps"]
    variance = sums["returns_squared"] / n - (sums["returns"] / n) ** 2
    unexplained = sums["residual_squared"] / n - (sums["residual"] / n) ** 2
    return 1.0 - unexplained / variance if variance > 1e-12 else 0.0


def _normalise(advantages: Tensor, mask: Tensor, reduce: Reduce) -> Tensor:
    """Zero mean and unit deviation over the valid latent steps of all ranks; zero elsewhere."""
    valid = advantages[mask].double()
    count, total = reduce(torch.stack([mask.sum().double(), valid.sum()]))
    mean = total / count
    deviation = (reduce((valid - mean).square().sum()) / count).sqrt()
    return torch.where(mask, ((advantages - mean) / (deviation + 1e-8)).float(), torch.zeros_like(advantages))


def deal(lots: list[tuple[Any, int]], world: int) -> list[list[Any]]:
    """Share out (item, size) lots over `world` ranks, about the same total size each, none without."""
    shares: list[list[Any]] = [[] for _ in range(world)]
    totals = [0] * world
    for item, size in sorted(lots, key=lambda lot: -lot[1]):
        rank = min(range(world), key=lambda r: (totals[r], len(shares[r])))
        shares[rank].append(item)
        totals[rank] += size
    return shares
