#!/usr/bin/env python
"""Training speed of behaviour cloning: Ray Train with DeepSpeed and Parquet against a bare PyTorch loop.

Both train the same policy on the same batches with one thread. The bare loop is timed before and after ours, so that a
machine that slows down or speeds up meanwhile does not favour either.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job

EPISODES, STEPS, IMAGE_SIZE = 24, 100, 128


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    quick: bool = False
    """Ends within 45 s on 2 cores."""
    json: Path | None = None
    """File for the numbers."""
    preset: str = "small"
    streams: int = 16
    """Decisions a batch."""
    zero_stage: int = 2


def main(settings: Settings) -> None:
    from actors.cluster import connect
    from avavla_ray.files import write_json
    from avavla_ray.policy.config import preset
    from avavla_ray.training.behaviour_cloning import train
    from avavla_ray.training.settings import CloningSettings, Stage

    policy = preset(settings.preset)
    seconds = 5.0 if settings.quick else 30.0
    connect(address=os.environ.get("RAY_ADDRESS", "local"), cpus=1)
    with tempfile.TemporaryDirectory(prefix="bench-bc-") as temporary:
        folder = Path(temporary)
        write_demonstrations(folder / "demos")
        before = bare_loop(folder / "demos", policy, settings.streams, seconds)
        ours = train(
            CloningSettings(
                minutes=2 * seconds / 60, streams=settings.streams, workers=1, stages=(Stage("cloning"),), held_out=0.0,
                zero_stage=settings.zero_stage, validations=1, checkpoints=1,
            ),
            policy, folder / "demos", folder / "bc",
        ).metrics  # fmt: skip
        after = bare_loop(folder / "demos", policy, settings.streams, seconds)
    bare = (before + after) / 2
    numbers: dict[str, Any] = {
        "ratio_to_bare_loop": ours["decisions_per_s"] / bare,
        "data_wait_share": ours["data_wait_share"],
        "decisions_per_s": ours["decisions_per_s"],
        "bare_decisions_per_s": bare,
        "bare_drift": after / before,
        "steps": ours["step"],
        "streams": settings.streams,
        "zero_stage": settings.zero_stage,
        "preset": settings.preset,
    }
    for name, value in numbers.items():
        print(f"{name:>24} {value:.4g}" if isinstance(value, float) else f"{name:>24} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)


def write_demonstrations(folder: Path) -> None:
    """Episodes of LIBERO's size whose pictures are about as hard to decode as its own (18 kB a PNG)."""
    import numpy as np

    from avavla_ray.demonstrations.schema import Episode, EpisodeInfo, encode_image
    from avavla_ray.demonstrations.writer import DatasetWriter

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


def bare_loop(demonstrations: Path, config: Any, streams: int, seconds: float) -> float:
    """Decisions a second of plain PyTorch on batches that lie ready in memory."""
    import time

    import torch

    from avavla_ray.demonstrations.mixture import open_mixture
    from avavla_ray.demonstrations.windows import WindowSettings, WindowWalk
    from avavla_ray.policy.policy import AvaVlaPolicy
    from avavla_ray.policy.text import make_tokenizer
    from avavla_ray.training.objective import CloningObjective, learning_parameters, to_tensors
    from avavla_ray.training.stages import PARTS

    torch.set_num_threads(1)
    tokenizer = make_tokenizer(config)
    walk = WindowWalk(
        open_mixture([demonstrations]), lambda text: tokenizer.encode(text).numpy(),
        WindowSettings(streams=streams, chunk=config.chunk),
    )  # fmt: skip
    batches = [to_tensors(walk.next()) for _ in range(6)]
    torch.manual_seed(0)
    policy = AvaVlaPolicy(config)
    parameters = learning_parameters(policy, PARTS["cloning"])
    objective, belief = CloningObjective(policy), policy.initial_belief(streams)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    count, start = 0, 0.0
    while count < 6 or time.perf_counter() - start < seconds:
        if count == 3:
            start = time.perf_counter()
        loss, belief, _ = objective(batches[count % len(batches)], belief)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        count += 1
    return (count - 3) * streams / (time.perf_counter() - start)


if __name__ == "__main__":
    run_job(main, Settings)
