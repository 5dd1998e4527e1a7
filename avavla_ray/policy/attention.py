"""Active visual attention (arXiv 2511.18960, section 3): the belief decides how much each visual token counts.

The weights multiply the attention that every query pays to a visual token, renormalised, in every layer. That equals
adding log w to the attention logits, which fused kernels can do.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import AttentionConfig, BackboneConfig
from avavla_ray.policy.float32 import float32_island
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.positions import sincos_2d
from avavla_ray.policy.transformer import MultiHeadAttention

_SMALLEST = 1e-8
_GOLDEN = (math.sqrt(5) - 1) / 2


def temperature_at(config: AttentionConfig, progress: float) -> float:
    """Temperature of the weights' softmax at a share `progress` in [0, 1] of training: exponential, then constant."""
    share = min(progress / config.temperature_fraction, 1.0) if config.temperature_fraction > 0 else 1.0
    return config.temperature_start * (config.temperature / config.temperature_start) ** share


def log_bias(weights: Tensor) -> Tensor:
    """(B, N) attention weights -> their logarithm; a weight of 0 becomes -inf, that is, no attention at all."""
    return torch.where(weights > 0, weights.clamp_min(_SMALLEST).log(), -math.inf)


def prune(tokens: Tensor, weights: Tensor, keep_ratio: float, sink_tokens: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Drop the lowest-weighted tokens from the sequence; the sinks stay and order is kept.

    Among equal weights, as of a policy whose AVA is not trained yet, those that stay are spread evenly over all
    cameras instead of being the last camera's.

    Args:
        tokens: (B, N, D). weights: (B, N). keep_ratio: share kept, rounded up.

    Returns:
        (B, N', D), (B, N'), and which ones they are, (B, N') int64 ascending; None where all stay.
    """
    N = weights.shape[1]
    keep = max(math.ceil(keep_ratio * N), sink_tokens, 1)
    if keep >= N:
        return tokens, weights, None
    priority = weights.clone()
    priority[:, :sink_tokens] = math.inf
    spread = _spread_order(N, weights.device)
    best = priority[:, spread].argsort(dim=1, descending=True, stable=True)[:, :keep]
    index = spread[best].sort(dim=1).values
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2])), weights.gather(1, index), index


@functools.lru_cache(maxsize=8)
def _spread_order(N: int, device: torch.device) -> Tensor:
    """0..N-1 in an order of which every beginning lies evenly over all of them: so do multiples of the golden ratio,
    modulo 1, in the unit interval."""
    return (torch.arange(N, dtype=torch.float64, device=device) * _GOLDEN).frac().argsort()


class ActiveVisualAttention(nn.Module):
    """Weights of the visual tokens from the previous decision's hidden states."""

    def __init__(self, config: AttentionConfig, backbone: BackboneConfig | OpenVlaConfig) -> None:
        super().__init__()
        self.config = config
        W, D = config.width, backbone.width
        self.reduce = nn.Sequential(nn.Linear(D, W), nn.GELU(approximate="tanh"), nn.Linear(W, W))
        positions = sincos_2d(backbone.grid, W).repeat(backbone.num_cameras, 1)
        self.register_buffer("positions", positions, persistent=False)
        self.film = nn.Linear(D, 2 * W)
        self.belief = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, W))
        self.norm_cross = nn.LayerNorm(W)
        self.cross_attention = MultiHeadAttention(W, config.heads)
        self.norm_query, self.norm_source = nn.LayerNorm(W), nn.LayerNorm(W)
        self.self_attention = MultiHeadAttention(W, config.heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(W), nn.Linear(W, 2 * W), nn.GELU(approximate="tanh"), nn.Linear(2 * W, W)
        )
        self.head = nn.Linear(W, 2)
        # Training starts from plain attention: both logits equal, every weight the same.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @float32_island
    def forward(self, visual: Tensor, text: Tensor, hidden: Tensor, temperature: float) -> Tensor:
        """visual (B, N, D), mean text embedding (B, D), belief (B, M, D) -> weights (B, N) float32.

        A zero belief (an episode's first decision) is a legitimate input: its keys are then all alike, and the
        weights depend on image and text alone.
        """
        config = self.config
        plain = self.reduce(visual) + self.positions
        gain, shift = self.film(text)[:, None].chunk(2, dim=-1)
        x = plain * (1 + gain) + shift
        x = x + self.cross_attention(self.norm_cross(x), self.belief(hidden))
        x = x + self.self_attention(self.norm_query(x), self.norm_source(plain))
        x = x + self.feed_forward(x)
        p = (self.head(x).float() / temperature).softmax(dim=-1)[..., 0]
        weights = config.bias + p * config.positive + (1 - p) * config.negative
        sinks = weights[:, : config.sink_tokens].clamp_min(1.0)
        return torch.cat([sinks, weights[:, config.sink_tokens :]], dim=1)
