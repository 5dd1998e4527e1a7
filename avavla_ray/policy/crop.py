"""Cropping a picture and resizing it back, as TensorFlow does for OpenVLA: in training anywhere, at evaluation the
centre.

`crop_and_resize` is `tf.image.crop_and_resize` to the bit: bilinear between the pixel centres of the crop's corners,
without antialiasing.
"""

from __future__ import annotations

import functools

import numpy as np


def crop_and_resize(pixels: np.ndarray, top: float, left: float, side: float) -> np.ndarray:
    """(H, W, 3) float32 -> a part of it at the same size.

    Args:
        top, left: of the part's upper left corner, in shares of the picture's height and width.
        side: of the part, in the same shares.
    """
    rows = _places(pixels.shape[0], np.float32(top), np.float32(side))
    columns = _places(pixels.shape[1], np.float32(left), np.float32(side))
    return _blend(pixels, rows, columns)


def centre_crop(image: np.ndarray, area: float) -> np.ndarray:
    """(H, W, 3) uint8 -> its centre, `area` of it, at the same size."""
    rows, columns = (_centre_places(length, area) for length in image.shape[:2])
    blended = _blend(image.astype(np.float32) * np.float32(1 / 255), rows, columns)
    return (np.clip(blended, 0, 1) * np.float32(255.5)).astype(np.uint8)


_Places = tuple[np.ndarray, np.ndarray, np.ndarray]


@functools.lru_cache(maxsize=16)
def _centre_places(length: int, area: float) -> _Places:
    side = np.sqrt(np.float32(area))
    return _places(length, (np.float32(1) - side) / np.float32(2), side)


def _places(length: int, low: np.float32, side: np.float32) -> _Places:
    """Lower and upper neighbour and the share of the upper one, (length,) each, along an axis of `length` pixels."""
    last = np.float32(length - 1)
    high = low + side
    # All in float32, in TensorFlow's order: a rounding away, floor(255.5 v) picks another level.
    step = (high - low) * last / last
    places = low * last + np.arange(length, dtype=np.float32) * step
    # A crop that ends at the border can round past it.
    places = np.minimum(places, last)
    lower = np.floor(places)
    return lower.astype(int), np.ceil(places).astype(int), places - lower


def _blend(pixels: np.ndarray, rows: _Places, columns: _Places) -> np.ndarray:
    (above, below, down), (before, after, right) = rows, columns
    left, far = pixels[:, before], pixels[:, after]
    top = left[above] + (far[above] - left[above]) * right[:, None]
    bottom = left[below] + (far[below] - left[below]) * right[:, None]
    return top + (bottom - top) * down[:, None, None]
