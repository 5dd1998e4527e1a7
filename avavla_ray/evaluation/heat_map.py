"""The AVA weights of the visual tokens, drawn over the picture that they are of."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from avavla_ray.errors import InputError

ORANGE = np.array([255.0, 140.0, 0.0])
DARKENS, GLOWS = 0.75, 0.55  # how much of the picture's colour a weight of 0, and one of 2, takes away


def weight_field(weights: np.ndarray, size: int, crop: float = 1.0) -> np.ndarray:
    """Weights of one camera's tokens at every pixel of its picture; 1 where the policy does not look.

    Args:
        weights: (N,) of a square grid of tokens, row-major.
        size: pixels along a side of the picture.
        crop: share of the picture's area, at its centre, that the tokens are of.

    Returns:
        (size, size) float32.

    Raises:
        InputError: the tokens are no square grid.
    """
    grid = math.isqrt(len(weights))
    if grid * grid != len(weights):
        raise InputError(f"{len(weights)} visual tokens are no square grid: give those of one camera")
    seen = round(size * math.sqrt(crop))
    tokens = Image.fromarray(weights.reshape(grid, grid).astype(np.float32))
    field = np.ones((size, size), np.float32)
    start = (size - seen) // 2
    field[start : start + seen, start : start + seen] = np.asarray(
        tokens.resize((seen, seen), Image.Resampling.BILINEAR)
    )
    return field


def draw_weights(picture: np.ndarray, weights: np.ndarray, crop: float = 1.0) -> np.ndarray:
    """(S, S, 3) uint8 with its tokens' weights over it: darker below 1, orange above. A weight of 1 shows nothing.

    Raises:
        InputError: see `weight_field`.
    """
    field = weight_field(weights, len(picture), crop)[..., None]
    less, more = np.clip(1 - field, 0, 1), np.clip(field - 1, 0, 1)
    drawn = picture * (1 - DARKENS * less)
    drawn = drawn + GLOWS * more * (ORANGE - drawn)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
