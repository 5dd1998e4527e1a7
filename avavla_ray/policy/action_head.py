"""Around the action tokens: what they start as, how z reaches them, and how a chunk is read off them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.float32 import float32_island


def _start_neutral(config: PolicyConfig, last: nn.Linear) -> None:
    """On a pretrained backbone whatever is added starts at zero, so that the policy first acts as the model does."""
    if not isinstance(config.backbone, BackboneConfig):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class ActionTokens(nn.Module):
    """Input embeddings of the M action tokens.

    Zeros plus positions; with state-based initialisation (arXiv 2511.18960) an MLP of the previous decision's hidden
    states is added.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        D = config.backbone.width
        # A language model knows positions of its own, and OpenVLA-OFT's action tokens start empty.
        spread = 0.02 if isinstance(config.backbone, BackboneConfig) else 0.0
        self.positions = nn.Parameter(spread * torch.randn(config.action_tokens, D))
        self.initialise = None
        if config.state_initialisation:
            last = nn.Linear(D, D)
            _start_neutral(config, last)
            self.initialise = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D), nn.GELU(approximate="tanh"), last)

    @float32_island
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
        last = nn.Linear(D, D)
        _start_neutral(config, last)
        self.mlp = nn.Sequential(nn.Linear(config.latent.width, D), nn.GELU(approximate="tanh"), last)
        self.scale = nn.Parameter(torch.full((1,), config.latent.action_scale))

    @float32_island
    def forward(self, z: Tensor) -> Tensor:
        """z (B, Z) -> (B, 1, D), to be added to tokens."""
        return (self.scale * self.mlp(z))[:, None]


class ChunkHead(nn.Module):
    """L1 regression head: the action tokens' last hidden states to a chunk of normalised actions.

    Args:
        width: D. action_dim: A.
    """

    def __init__(self, width: int, action_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.Linear(width, action_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, D) -> (B, C, A)."""
        return self.layers(tokens)
