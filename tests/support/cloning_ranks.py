"""What the ranks of the cloning test do, without Ray; importable, so that spawned processes find it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.policy.config import preset
from avavla_ray.training import cloning_worker
from avavla_ray.training.cloning_worker import CloningWork, Worker
from avavla_ray.training.engine import EngineSettings, start_process_group
from avavla_ray.training.settings import CloningSettings
from avavla_ray.training.stage_run import engine_settings


class Losses:
    """Stands where the MLflow run does; keeps every step's loss."""

    def __init__(self) -> None:
        self.by_step: dict[int, float] = {}
        self.waiting = 0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if "train/loss" in metrics:
            self.by_step[step] = metrics["train/loss"]

    def close(self) -> None:
        """Nothing waits."""


def shard_everything() -> None:
    """ZeRO 3 leaves parameters of under 100,000 numbers whole, which are all of a tiny policy's."""
    configure = EngineSettings.to_deepspeed

    def to_deepspeed(settings: EngineSettings) -> dict[str, Any]:
        made = configure(settings)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    EngineSettings.to_deepspeed = to_deepspeed  # type: ignore[method-assign]


def work(rank: int, world: int, port: int, cases: list[tuple[CloningSettings, str, str]]) -> None:
    """Train, or resume, every case: settings, demonstrations, output folder. Losses go to OUTPUT/losses-WORLD.json."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    cloning_worker.LOG_EVERY = 1
    shard_everything()
    for settings, demonstrations, output in cases:
        start_process_group(engine_settings(settings, world))
        what = CloningWork(settings, preset("tiny"), open_mixture([demonstrations]), Path(output), "", {})
        worker = Worker(what, rank, world)
        losses: Any = Losses()
        worker.tracked = losses
        worker.start()
        worker.train()
        if rank == 0:
            (Path(output) / f"losses-{world}.json").write_text(json.dumps(losses.by_step))
    torch.distributed.destroy_process_group()
