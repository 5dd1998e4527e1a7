"""V-trace over latent steps: targets of a critic, and advantages, from what an older policy did.

"IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures", Espeholt et al. 2018,
section 4.1 (the targets, with lambda as in remark 2) and 4.2 (the advantage), on the chain of
avavla_ray/learning/gae.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from avavla_ray.learning.gae import backward_sums, lay_out


def semi_markov_vtrace(
    rewards: Tensor,
    values: Tensor,
    steps: Tensor,
    next_value: Tensor,
    duration: Tensor,
    terminated: Tensor,
    chain_end: Tensor,
    log_ratio: Tensor,
    *,
    gamma: float = 0.99,
    lambda_: float = 0.95,
    latent_discount: float = 1.0,
    max_rho: float = 1.0,
    max_c: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Advantages and V-trace targets of every valid latent step; with all ratios 1, what `semi_markov_gae` gives.

        target = V + rho * (r + discount * V' - V) + discount * lambda * c * (target' - V')
        advantage = r + discount * (V' + lambda * (target' - V')) - V

    with rho = min(ratio, max_rho), c = min(ratio, max_c), and ' for what follows a step; past a chain's end target' is
    the bootstrap V' itself. The advantage is without the step's own rho: the loss weights by the ratio.

    Args:
        rewards, values, steps, next_value, duration, terminated, chain_end: as of `semi_markov_gae`.
        log_ratio: (T, K), log probability of all that was drawn at latent step k under the policy at the start of the
            update, less that under the policy that acted.

    Returns:
        (T, K) float32 each, zero at invalid steps.

    Raises:
        ValueError: a decision without a latent step has no place in the chain.
    """
    chain = lay_out(rewards, values, steps, next_value, duration, terminated, chain_end, gamma, latent_discount)
    ratio = torch.where(chain.valid, log_ratio.double(), 0.0).exp()
    rho, c = ratio.clamp_max(max_rho), ratio.clamp_max(max_c)
    delta = chain.rewards + chain.discount * chain.following - chain.values
    correction = backward_sums(rho * delta, lambda_ * chain.discount * c, chain)  # target - V
    next_row = pad(correction[1:, :1], (0, 0, 0, 1))
    later = torch.where(chain.last, next_row, pad(correction[:, 1:], (0, 1)))
    later = torch.where(chain.goes_on, later, 0.0)
    advantages = delta + lambda_ * chain.discount * later
    return advantages.float(), (correction + chain.values).float()
