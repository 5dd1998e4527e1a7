"""The policy's transformer: pre-norm blocks on PyTorch's fused attention, with a float bias on the keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Lowest bias of a key where it is a feature: its share is 0 in every precision, and 0 times it is a number.
_SILENT = -1e4
_ALIGNED = 8  # widths of heads that kernels like are multiples of it


class MultiHeadAttention(nn.Module):
    """Queries from one sequence, keys and values from another.

    Args:
        width: of the queries, the output, and the heads together. source_width: of the sequence attended to.
    """

    def __init__(self, width: int, heads: int, source_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width or width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """x (B, Q, width) attends to source (B, S, source_width).

        Args:
            key_bias: (B, S) float, added to every query's logits for that key; log w multiplies its share by w.
        """
        return self.attend(x, *self.keys_values(source), key_bias)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, source_width) -> keys and values, (B, heads, S, width / heads) each, for `attend`."""
        k, v = self.key_value(source).view(len(source), source.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return k, v

    def attend(self, x: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """`forward` on what `keys_values` made of a source that many calls attend to."""
        B, Q, width = x.shape
        q = self.query(x).view(B, Q, self.heads, -1).transpose(1, 2)
        if key_bias is not None and key_bias.requires_grad and x.device.type == "cpu":
            mixed = _biased_attention(q, k, v, key_bias)
            return self.output(mixed.transpose(1, 2).reshape(B, Q, width))
        mask = None if key_bias is None else key_bias.to(q.dtype)[:, None, None, :].expand(-1, self.heads, Q, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(B, Q, width))


def _biased_attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> Tensor:
    """Attention with a bias (B, S) that learns, as one more feature of the keys, which every query weighs alike.

    The same as a mask, which has no fused kernel on the CPU once it needs a gradient.

    Args:
        q: (B, heads, Q, width / heads). k, v: (B, heads, S, width / heads).
    """
    width = q.shape[-1]
    bias = key_bias.clamp_min(_SILENT).to(q.dtype)[:, None, :, None].expand(*k.shape[:3], 1)
    ones = q.new_full((*q.shape[:3], 1), width**0.5)
    q, k = (F.pad(torch.cat(parts, dim=-1), (0, _ALIGNED - 1)) for parts in ((q, ones), (k, bias)))
    v = F.pad(v, (0, _ALIGNED))
    return F.scaled_dot_product_attention(q, k, v, scale=width**-0.5)[..., :width]


class Block(nn.Module):
    """Pre-norm transformer layer. `dropout` acts on both residual branches, in training only."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, key_bias: Tensor | None = None, last: int | None = None) -> Tensor:
        """(B, S, width) -> (B, S, width), or only its `last` positions, which is exact and saves the rest's work."""
        source = self.norm_attention(x)
        if last is not None:
            x = x[:, -last:]
        x = x + self.dropout(self.attention(source[:, -x.shape[1] :], source, key_bias))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class Transformer(nn.Module):
    """Bidirectional over [visual, text, proprio, action] tokens, as OpenVLA-OFT's parallel decoding."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, key_bias: Tensor | None, last: int) -> tuple[Tensor, Tensor]:
        """Run the sequence; return what its `last` tokens (the action tokens) became.

        Args:
            x: (B, S, D). key_bias: (B, S) float attention bias of every layer, or None.

        Returns:
            hidden (B, last, D): output of the last-but-one layer, the belief of arXiv 2511.18960;
            output (B, last, D): of the last layer, normalised.
        """
        for block in self.blocks[:-1]:
            x = block(x, key_bias)
        hidden = x[:, -last:]
        return hidden, self.norm(self.blocks[-1](x, key_bias, last=last))
