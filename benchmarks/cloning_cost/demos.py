"""Demonstrations to measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
from avavla_ray.demonstrations.writer import DatasetWriter

EPISODES, STEPS, IMAGE_SIZE = 24, 100, 128


def write_demonstrations(folder: Path) -> None:
    """Episodes of LIBERO's size whose pictures are about as hard to decode as its own (18 kB a PNG)."""
    random = np.random.default_rng(0)
    writer, names = DatasetWriter(folder), []
    rows = np.linspace(40, 200, IMAGE_SIZE)[:, None, None]
    # Ten pictures are shared by all steps: encoding thousands is not what is measured.
    pictures = [
        encode_image(np.clip(rows + random.normal(0, 3, (IMAGE_SIZE, IMAGE_SIZE, 3)), 0, 255).astype(np.uint8))
        for _ in range(10)
    ]
    for number in range(EPISODES):
        info = EpisodeInfo(f"bench-{number:03d}", "bench", 0, number, number, STEPS, 0, "pick up the bowl")
        actions = np.clip(random.normal(0, 0.5, (STEPS, 7)), -1, 1).astype(np.float32)
        proprio = random.normal(0, 1, (STEPS, 8)).astype(np.float32)
        images = [[pictures[step % 10], pictures[(step + 3) % 10]] for step in range(STEPS)]
        writer.write(Episode(info, images, proprio, actions))
        names.append(info.episode)
    writer.finish("bench", names, {"suite": "bench", "image_size": IMAGE_SIZE, "provenance": {}})
