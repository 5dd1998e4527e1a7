"""Pictures for floors, walls and wood, computed from noise with fixed seeds."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Wood:
    """Boards with a grain along the picture's rows.

    Attributes:
        light, dark: colours between which the grain moves.
        boards: number of boards across; 1 leaves no joints. joint: colour of the joints.
        grain: streaks across the picture.
    """

    light: Colour
    dark: Colour
    boards: int
    joint: Colour
    grain: int
    size: int
    seed: int

    def paint(self) -> np.ndarray:
        streaks = 0.6 * _noise(self.size, self.grain, 3, self.seed) + 0.4 * _noise(
            self.size, 3 * self.grain, 6, self.seed + 1
        )
        tone = np.zeros_like(streaks)
        joint = np.zeros_like(streaks, dtype=bool)
        if self.boards > 1:
            width = self.size // self.boards
            rng = np.random.default_rng(self.seed + 2)
            for board in range(self.boards):
                rows = slice(board * width, (board + 1) * width)
                tone[rows] = rng.uniform(-0.12, 0.12)
                streaks[rows] = np.roll(streaks[rows], rng.integers(self.size), axis=1)
                joint[board * width : board * width + 2] = True
                start = board * self.size // self.boards
                joint[rows, start : start + 2] = True
        mix = np.clip(streaks + tone, 0, 1)[..., None]
        picture = np.array(self.light) * (1 - mix) + np.array(self.dark) * mix
        picture[joint] = self.joint
        return picture


@dataclass(frozen=True)
class Plaster:
    """A nearly even wall."""

    light: Colour
    dark: Colour
    size: int
    seed: int

    def paint(self) -> np.ndarray:
        blotches = 0.7 * _noise(self.size, 6, 6, self.seed) + 0.3 * _noise(self.size, 24, 24, self.seed + 1)
        return np.array(self.light) * (1 - blotches[..., None]) + np.array(self.dark) * blotches[..., None]


def _noise(size: int, down: int, across: int, seed: int) -> np.ndarray:
    """(size, size) smooth values in [0, 1] that repeat at the edges, from a grid of `down` x `across` random ones."""
    grid = np.random.default_rng(seed).uniform(size=(down, across))
    for axis, cells in ((0, down), (1, across)):
        place = np.arange(size) * cells / size
        low = place.astype(int)
        part = place - low
        part = part * part * (3 - 2 * part)
        part = part[:, None] if axis == 0 else part[None, :]
        grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, (low + 1) % cells, axis) * part
    return grid


def png(picture: np.ndarray) -> bytes:
    """(H, W, 3) colours in [0, 1] as a PNG with 32 levels a channel, which keeps it small."""
    levels = np.round(np.clip(picture, 0, 1) * 31) * (255 / 31)
    stream = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


# The arena classes ask for those without "bundled" by these names.
TEXTURES: dict[str, Wood | Plaster] = {
    "textures/light-gray-floor-tile.png": Wood(
        (0.80, 0.78, 0.75), (0.62, 0.59, 0.55), boards=2, joint=(0.90, 0.89, 0.87), grain=24, size=256, seed=1
    ),
    "textures/light-gray-plaster.png": Plaster((0.86, 0.87, 0.86), (0.79, 0.80, 0.79), size=128, seed=2),
    "textures/gray_ceramic_tile.png": Wood(
        (0.78, 0.73, 0.67), (0.66, 0.60, 0.54), boards=2, joint=(0.88, 0.85, 0.81), grain=8, size=256, seed=7
    ),
    "textures/seamless_wood_planks_floor.png": Wood(
        (0.91, 0.78, 0.56), (0.80, 0.64, 0.40), boards=8, joint=(0.60, 0.46, 0.28), grain=32, size=256, seed=8
    ),
    "textures/yellow_linen_wall_texture.png": Plaster((0.89, 0.87, 0.74), (0.82, 0.80, 0.66), size=128, seed=9),
    "textures/bundled_dark_table.png": Wood(
        (0.40, 0.26, 0.19), (0.29, 0.18, 0.12), boards=1, joint=(0, 0, 0), grain=26, size=256, seed=10
    ),
    "textures/bundled_desk.png": Wood(
        (0.66, 0.46, 0.25), (0.50, 0.33, 0.16), boards=1, joint=(0, 0, 0), grain=14, size=256, seed=11
    ),
    "textures/bundled_table.png": Wood(
        (0.87, 0.77, 0.64), (0.74, 0.61, 0.47), boards=1, joint=(0, 0, 0), grain=20, size=256, seed=3
    ),
    "textures/bundled_walnut.png": Wood(
        (0.29, 0.19, 0.12), (0.17, 0.10, 0.06), boards=1, joint=(0, 0, 0), grain=18, size=128, seed=4
    ),
    "textures/bundled_white_wood.png": Wood(
        (0.93, 0.93, 0.93), (0.80, 0.81, 0.82), boards=1, joint=(0, 0, 0), grain=22, size=128, seed=5
    ),
    "textures/bundled_maple.png": Wood(
        (0.88, 0.70, 0.47), (0.66, 0.45, 0.25), boards=1, joint=(0, 0, 0), grain=14, size=128, seed=6
    ),
}
