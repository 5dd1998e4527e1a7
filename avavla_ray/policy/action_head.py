"""Around the action tokens: what they start as, how z reaches them, and how a chunk is read off them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import PolicyConfig


class ActionTokens(nn.Module):
    """Input embeddings of the M action tokens.

    Zeros plus positions; with state-based initialisation (arXiv 2511.18960) an MLP of the previous decision's hidden
    states is added.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        D = config.backbone.width
        self.positions = nn.Parameter(0.02 * torch.randn(config.action_tokens, D))
        self.initialise = None
        if config.state_initialisation:
            self.initialise = nn.Sequential(
                nn.LayerNorm(D), nn.Linear(D, D), nn.GELU(approximate="tanh"), nn.Linear(D, D)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """Belief (B, M, D) -> (B, M, D)."""
        if self.initialise is None:
            return self.positions.expand(len(hidden), -1, -1)
        return self.positions + self.initialise(hidden)


class LatentConditioning(nn.Module):
    """What the final latent adds to text and action embeddings: a scaled MLP of z (arXiv 2606.15099)."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        D = config.backbone.width
        self.mlp = nn.Sequential(nn.Linear(config.latent.width, D), nn.GELU(approximate="tanh"), nn.Linear(D, D))
        self.scale = nn.Parameter(torch.full((1,), config.latent.action_scale))

    def forward(self, z: Tensor) -> Tensor:
        """z (B, Z) -> (B, 1, D), to be added to tokens."""
        return (self.scale * self.mlp(z))[:, None]


class ChunkHead(nn.Module):
    """L1 regression head: the action tokens' last hidden states to a chunk of normalised actions."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        D = config.backbone.width
        self.layers = nn.Sequential(nn.Linear(D, D), nn.GELU(approximate="tanh"), nn.Linear(D, config.action_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, D) -> (B, C, A) float32."""
        return self.layers(tokens).float()
