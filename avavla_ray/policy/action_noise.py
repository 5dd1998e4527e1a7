"""Noise on the executed chunk: what PPO on actions explores with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avavla_ray.policy.float32 import float32_island
from avavla_ray.policy.reasoning import gaussian_log_prob

if TYPE_CHECKING:
    from avavla_ray.policy.policy import AvaVlaPolicy


class ActionNoise(nn.Module):
    """A Gaussian around the decoded chunk, in the normalised action space; one deviation an action dimension.

    Args:
        action_dim: A. std: deviation to begin with, as a share of half the data's range.
    """

    def __init__(self, action_dim: int, std: float) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((action_dim,), math.log(std)))

    @float32_island
    def forward(
        self, mean: Tensor, *, normals: Tensor | None = None, chunk: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """A drawn chunk and the log-probabilities of its steps, summed over A: (B, C, A), (B, C).

        Args:
            mean: (B, C, A). normals: standard normals to draw with. chunk: one that was drawn before, in their place.
        """
        if chunk is None:
            assert normals is not None, "either of the two"
            chunk = mean + self.log_std.exp() * normals
        return chunk, gaussian_log_prob(chunk, mean, self.log_std)


def with_action_noise(policy: AvaVlaPolicy, std: float, *, keep: bool = False) -> None:
    """Give a policy noise of deviation `std`; with `keep` one that has some keeps it."""
    if keep and policy.action_noise is not None:
        return
    policy.config = replace(policy.config, action_noise=std)
    policy.action_noise = ActionNoise(policy.config.action_dim, std).to(policy.device)
