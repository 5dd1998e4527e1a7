"""Fixed two-dimensional sine-cosine positions."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_2d(grid: int, width: int) -> Tensor:
    """(grid * grid, width) float32 in row-major order: a quarter each of sin and cos of the row and of the column.

    `width` must be divisible by 4.
    """
    frequency = 100.0 ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float32)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = wave[:, None].expand(grid, grid, -1)
    columns = wave[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width)
