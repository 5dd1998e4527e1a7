"""What OpenVLA-OFT adds around the language model: a proprioception token and the L1 action head."""

from __future__ import annotations

from torch import Tensor, nn

from avavla_ray.policy.openvla.config import OpenVlaConfig


class ProprioProjector(nn.Module):
    """Normalised proprioception to one token."""

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        D = config.language.width
        self.fc1 = nn.Linear(config.proprio_dim, D)
        self.fc2 = nn.Linear(D, D)
        self.activation = nn.GELU()

    def forward(self, proprio: Tensor) -> Tensor:
        """(B, P) -> (B, 1, D)."""
        return self.fc2(self.activation(self.fc1(proprio.to(self.fc1.weight.dtype))))[:, None]


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x)).relu()


class L1Head(nn.Module):
    """Residual MLP from the A hidden states of a step of the chunk to its action."""

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__()
        D = config.language.width
        self.chunk = config.chunk
        self.norm1 = nn.LayerNorm(config.action_dim * D)
        self.fc1 = nn.Linear(config.action_dim * D, D)
        self.blocks = nn.ModuleList(_ResidualBlock(D) for _ in range(config.head_blocks))
        self.norm2 = nn.LayerNorm(D)
        self.fc2 = nn.Linear(D, config.action_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, M, D) -> (B, C, A) in the normalised action space."""
        x = self.fc1(self.norm1(hidden.reshape(len(hidden), self.chunk, -1).to(self.fc1.weight.dtype))).relu()
        for block in self.blocks:
            x = block(x)
        return self.fc2(self.norm2(x))
