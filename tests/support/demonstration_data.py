"""Small synthetic demonstrations, written through the real writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
from avavla_ray.demonstrations.writer import DatasetWriter

INSTRUCTION = "pick up the alphabet soup and place it in the basket"


def make_episode(attempt: int, steps: int = 20, *, task: int = 0, size: int = 32, seed: int = 0) -> Episode:
    """An episode whose actions follow from what it shows: a square moves right, the hand follows it.

    The square's column is in proprio[0] and in the picture; action[0] is its distance from the middle.
    """
    random = np.random.default_rng([seed, task, attempt])
    place = np.clip(random.uniform(0, 1) + np.cumsum(random.normal(0, 0.05, steps)), 0, 1)
    proprio = np.zeros((steps, 8), np.float32)
    proprio[:, 0] = place
    proprio[:, 1:] = random.normal(size=(1, 7))
    actions = np.zeros((steps, 7), np.float32)
    actions[:, 0] = 2 * place - 1
    actions[:, 1:6] = random.uniform(-0.3, 0.3, (1, 5))
    actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
    images = []
    for step in range(steps):
        pixels = np.full((2, size, size, 3), 40, np.uint8)
        column = int(place[step] * (size - 4))
        pixels[:, size // 2 - 2 : size // 2 + 2, column : column + 4] = (200, step, 90)
        images.append([encode_image(picture) for picture in pixels])
    name = f"synthetic-{task:02d}-{attempt:05d}"
    info = EpisodeInfo(name, "libero_object", task, attempt, seed + attempt, steps, 0, INSTRUCTION)
    return Episode(info, images, proprio, actions)


def make_dataset(
    folder: Path, episodes: int = 6, steps: int = 20, size: int = 32, *, name: str = "libero_object", seed: int = 0
) -> Path:
    """A data set of `episodes` episodes whose lengths differ."""
    writer = DatasetWriter(folder)
    names = []
    for attempt in range(episodes):
        episode = make_episode(attempt, steps + attempt % 3, size=size, seed=seed)
        writer.write(episode)
        names.append(episode.info.episode)
    writer.finish(name, names, {"suite": "libero_object", "image_size": size, "provenance": {}})
    return folder
