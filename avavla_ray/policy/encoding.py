"""The observation encoding psi and the start of reasoning z_0 (arXiv 2606.15099, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avavla_ray.policy.config import LatentConfig
from avavla_ray.policy.float32 import float32_island


class ObservationEncoder(nn.Module):
    """psi(o_t) from pooled visual, text, proprio and history features, and z_0 = tanh(W psi).

    It sees what the robot sees and nothing of the demonstrated actions.

    Args:
        visual_width: of all cameras' pooled features together. proprio_dim: 0 for a policy without proprioception.
    """

    def __init__(self, config: LatentConfig, visual_width: int, text_width: int, proprio_dim: int) -> None:
        super().__init__()
        E = config.encoding_width
        widths = [width for width in (visual_width, text_width, proprio_dim, config.width) if width]
        self.parts = nn.ModuleList(nn.Linear(width, E) for width in widths)
        self.fuse = nn.Sequential(
            nn.Linear(len(widths) * E, E), nn.GELU(approximate="tanh"), nn.Linear(E, E), nn.LayerNorm(E)
        )  # fmt: skip
        self.start = nn.Linear(E, config.width)

    @float32_island
    def forward(self, visual: Tensor, text: Tensor, proprio: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """(B, visual_width), (B, D), (B, P), (B, Z) -> psi (B, E) and z_0 (B, Z), both float32."""
        given = [x for x in (visual, text, proprio, history) if x.shape[-1]]
        parts = [project(x) for project, x in zip(self.parts, given, strict=True)]
        encoding = self.fuse(torch.cat(parts, dim=-1))
        return encoding, torch.tanh(self.start(encoding))
