"""Pictures whose colour tells their number, for tests of who shows which frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avavla_ray.demonstrations.schema import Episode, encode_image
from avavla_ray.demonstrations.writer import DatasetWriter
from tests.support.demonstration_data import make_episode

LEVELS, APART = 8, 32  # levels of a channel, and how far they are apart: compression moves a colour by 2 or 3


def numbered(number: int, size: int = 32) -> np.ndarray:
    """A picture (size, size, 3) uint8 of one colour; numbers below 512."""
    digits = (number // LEVELS**2, number // LEVELS % LEVELS, number % LEVELS)
    return np.broadcast_to(np.array([digit * APART + APART // 2 for digit in digits], np.uint8), (size, size, 3))


def number_of(pixels: np.ndarray) -> int:
    """What `numbered` was given, of a picture that has been compressed."""
    red, green, blue = (pixels.reshape(-1, 3).mean(0) // APART).astype(int).tolist()
    return (red * LEVELS + green) * LEVELS + blue


def make_numbered_dataset(folder: Path, lengths: tuple[int, ...] = (9, 14, 11, 20), size: int = 32) -> Path:
    """A data set whose scene camera counts the steps of all episodes, and whose wrist camera counts down from 511."""
    writer, names, number = DatasetWriter(folder), [], 0
    for attempt, steps in enumerate(lengths):
        episode = make_episode(attempt, steps)
        images = []
        for _ in range(steps):
            images.append([encode_image(numbered(shown, size)) for shown in (number, 511 - number)])
            number += 1
        writer.write(Episode(episode.info, images, episode.proprio, episode.actions))
        names.append(episode.info.episode)
    writer.finish("libero_object", names, {"suite": "libero_object", "image_size": size, "provenance": {}})
    return folder
