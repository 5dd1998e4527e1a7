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

    Learned positions, or on a language model, which knows positions of its own, the zeros that OpenVLA-OFT starts them
    as; with state-based initialisation (arXiv 2511.18960) an MLP of the previous decision's hidden states is added.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        D = config.backbone.width
        small = isinstance(config.backbone, BackboneConfig)
        self.positions = nn.Parameter(0.02 * torch.randn(config.action_tokens, D)) if small else None
        self.initialise = None
        if config.state_initialisation:
            last = nn.Linear(D, D)
            _start_neutral(config, last)
            self.initialise = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D), nn.GELU(approximate="tanh"), last)

    @float32_island
    def forward(self, hidden: Tensor) -> Tensor:
        """Belief (B, M, D) -> (B, M, D)."""
        tokens = torch.zeros_like(hidden) if self.initialise is None else self.initialise(hidden)
        return tokens if self.positions is None else tokens + self.positions


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
