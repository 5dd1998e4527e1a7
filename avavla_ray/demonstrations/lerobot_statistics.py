"""Statistics of features as LeRobot v3.0 keeps them, of an episode and of the whole data set."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def vector_statistics(values: np.ndarray) -> dict[str, list[Any]]:
    """Of (T, F) numbers: lists of F, and a count of 1."""
    values = np.asarray(values)
    wide = values.astype(np.float64)
    found = {"min": values.min(0), "max": values.max(0), "mean": wide.mean(0), "std": wide.std(0)}
    found |= {name: np.quantile(wide, share, axis=0) for name, share in QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


class PictureStatistics:
    """Of a camera's pictures, per channel and scaled to [0, 1]: exact, from how often each of the 256 values occurs."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._pictures = 0

    def add(self, pixels: np.ndarray) -> None:
        """Count a picture, (H, W, 3) uint8."""
        for channel in range(3):
            self._counts[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
        self._pictures += 1

    def merge(self, other: PictureStatistics) -> None:
        self._counts += other._counts
        self._pictures += other._pictures

    def summary(self) -> dict[str, list[Any]]:
        """Lists of shape (3, 1, 1), and the number of pictures."""
        values = np.arange(256) / 255
        below = self._counts.cumsum(1)
        total = below[:, -1:]
        mean = (self._counts * values).sum(1, keepdims=True) / total
        found = {
            "min": values[(below > 0).argmax(1)],
            "max": values[(below == total).argmax(1)],
            "mean": mean[:, 0],
            "std": np.sqrt((self._counts * (values - mean) ** 2).sum(1) / total[:, 0]),
        }
        found |= {name: values[(below >= share * total).argmax(1)] for name, share in QUANTILES.items()}
        return {
            **{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()},
            "count": [self._pictures],
        }
