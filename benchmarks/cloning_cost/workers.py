"""What the benchmark does in Ray Train's workers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from avavla_ray.demonstrations.decisions import DrawLoader
from avavla_ray.demonstrations.windows import Source
from avavla_ray.files import write_json
from avavla_ray.training.cloning_worker import CloningWork
from avavla_ray.training.engine import start_process_group
from avavla_ray.training.loading import RayDataSource
from avavla_ray.training.settings import CloningSettings
from avavla_ray.training.stage_run import engine_settings
from benchmarks.cloning_cost.loops import BareLoop, TimedWorker, Turn
from benchmarks.cloning_cost.pipeline import measure_pipeline

NUMBERS = "numbers.json"


@dataclass(frozen=True)
class Plan:
    """What a worker measures; picklable.

    Attributes:
        what: to train, and the output folder, which gets NUMBERS.
        rounds: turns of the training loop, each between two of the bare one. seconds: of each.
        pipeline_s: seconds for each measurement of the data alone; 0 for none.
    """

    what: CloningWork
    rounds: int
    seconds: float
    pipeline_s: float = 0.0


def fit(
    work: Callable[[Any], None], plan: Any, settings: CloningSettings, output: Path, gpus: float = 0.0
) -> dict[str, Any]:
    """Run `work(plan)` in workers as jobs have them, and give back what it wrote into NUMBERS in `output`."""
    from ray.train import LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        work,
        train_loop_config=plan,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=gpus > 0,
            resources_per_worker={"CPU": settings.threads, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name="ray", storage_path=str(output), logging_config=LoggingConfig(log_level="WARNING")
        ),
    ).fit()  # fmt: skip
    return json.loads((output / NUMBERS).read_text(encoding="utf-8"))


def compare(plan: Plan) -> None:
    """The training loop and the bare one in turns, in one process; then the data alone. One worker."""
    what = plan.what
    load = _join(what)
    bare = BareLoop(what.policy, _batches(what, 6), what.settings.seed)
    bares, ours = [bare.run(plan.seconds / 2)], []
    for _ in range(plan.rounds):
        ours.append(TimedWorker(what, 0, 1, load, plan.seconds).run())
        bares.append(bare.run(plan.seconds / 2))
    numbers: dict[str, Any] = {"bare": [asdict(turn) for turn in bares], "ours": [asdict(turn) for turn in ours]}
    if plan.pipeline_s:
        numbers["pipeline"] = measure_pipeline(
            what.mixture, what.policy, what.settings.streams, what.settings.data_cpus, plan.pipeline_s
        )
    write_json(what.output / NUMBERS, numbers)


def train_only(plan: Plan) -> None:
    """The training loop alone, with any number of workers."""
    import ray.train

    load, context = _join(plan.what), ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    turns: list[Turn] = [
        TimedWorker(plan.what, rank, world, load, plan.seconds).run() for _ in range(plan.rounds)
    ]  # fmt: skip
    if rank == 0:
        write_json(plan.what.output / NUMBERS, {"ours": [asdict(turn) for turn in turns]})


def _join(what: CloningWork) -> Callable[[DrawLoader], Source]:
    """As `cloning_worker.work` begins; gives the way in which it loads demonstrations."""
    logging.getLogger().setLevel(logging.WARNING)
    settings = what.settings
    torch.set_num_threads(settings.threads)
    start_process_group(engine_settings(settings, settings.workers))
    return lambda loader: RayDataSource(loader, cpus=settings.data_cpus / settings.workers)


def _batches(what: CloningWork, count: int) -> list[Any]:
    """The first batches that the training loop learns from."""
    walk = TimedWorker(what, 0, 1, None, 0.0).walk
    return [walk.next() for _ in range(count)]
