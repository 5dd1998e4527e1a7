#!/usr/bin/env python
"""Collect demonstrations from the scripted expert, in parallel simulators, as Parquet episodes.

Only successes are kept. Repeating the command continues where it stopped; asking for more episodes adds them.
A start whose simulator breaks is tried three times and then counts as lost. A task that loses three starts in a row, or
that has no scripted expert, is left out and named in the data set; repeating the command gives it another chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avavla_ray.command_line import default_workers, run_job


@dataclass(frozen=True)
class Settings:
    """Settings of a collection."""

    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices, each of which must have an expert; all that have one when left out."""
    episodes: int = 50
    """Demonstrations of each task."""
    noise: float = 0.0
    """Standard deviation of what is added to the expert's motions, so that it shows how to recover."""
    speed: float = 1.0
    """Share of its own speed that the expert's hand moves at: a slow teacher, whom PPO can outdo."""
    lead_in: float = 0.0
    """Share of the attempts that begin where another task has just ended, as in a chain; CALVIN only."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    image_size: int = 128
    """Height and width of the pictures, pixels."""
    output: Path | None = None
    """Folder of the data set; runs/demos/SUITE when left out."""
    resume: bool = True
    """Continue what the folder holds; with --no-resume a folder that holds anything is refused."""
    seed: int = 0
    """Of starts and experts: the same seed gives the same data."""
    num_runners: int = default_workers()
    """Simulator actors."""
    timeout: float = 600.0
    """An attempt that takes more seconds has hung and is tried again."""


def main(settings: Settings) -> None:
    import functools
    import time

    from avavla_ray.demonstrations.collection import FAILED, KEPT, LOST, Collection
    from avavla_ray.demonstrations.writer import DatasetWriter
    from avavla_ray.errors import InputError
    from avavla_ray.progress import Progress
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.experts.cautious import check_speed
    from avavla_ray.simulators.experts.expert import check_lead_in, check_suite
    from avavla_ray.simulators.registry import identify, suite_spec

    config = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        image_size=settings.image_size,
    )  # fmt: skip
    data = identify(config)
    check_suite(settings.suite)
    check_speed(settings.speed)
    check_lead_in(settings.suite, settings.lead_in)
    instructions = suite_spec(settings.suite).instructions
    tasks = tuple(dict.fromkeys(settings.tasks)) or tuple(range(len(instructions)))
    if settings.num_runners < 1:
        raise InputError(f"--num-runners {settings.num_runners}: give at least 1")
    folder = settings.output or Path("runs/demos") / settings.suite
    identity = {
        "suite": settings.suite, **data, "render": settings.render,
        "image_size": settings.image_size, "noise": settings.noise, "speed": settings.speed, "seed": settings.seed,
    }  # fmt: skip
    expert = {"noise": settings.noise, "speed": settings.speed}
    if settings.lead_in:  # collections made before there was such a thing can still be continued
        identity["lead_in"] = expert["lead_in"] = settings.lead_in
    if not settings.resume and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: leave --no-resume out to continue it, or give another --output")
    collection, writer = Collection(folder, identity, tasks, settings.episodes), DatasetWriter(folder)
    for attempt, outcome in list(collection.outcomes.items()):
        if outcome == KEPT and writer.info(attempt.name(settings.suite)) is None:
            collection.forget(attempt)

    from actors.cluster import connect
    from actors.demonstrator import ExpertRecorder, collect
    from avavla_ray.provenance import provenance

    start, already = time.monotonic(), collection.count(KEPT)
    total = max(len(tasks) * settings.episodes, already)
    if not collection.done:
        connect(cpus=settings.num_runners)
        with Progress(total, f"collect {settings.suite}", "episodes", done=already) as progress:
            collect(
                collection, writer,
                functools.partial(ExpertRecorder, config, settings.noise, settings.speed, settings.lead_in),
                suite=settings.suite, seed=settings.seed, num_actors=settings.num_runners, timeout_s=settings.timeout,
                all_tasks=bool(settings.tasks),
                finished=lambda _, outcome: progress.advance(
                    int(outcome == KEPT), failed=collection.count(FAILED), lost=collection.count(LOST)
                ),
                describe=lambda simulator: provenance(seed=settings.seed, simulator=simulator, expert=expert),
            )  # fmt: skip
    kept = [attempt for task in tasks for attempt in collection.kept(task)]
    statistics = writer.finish(
        settings.suite,
        [attempt.name(settings.suite) for attempt in kept],
        {"suite": settings.suite, "tasks": list(tasks), "image_size": settings.image_size,
         "quarantined_tasks": {str(task): reason for task, reason in collection.quarantined.items()},
         "tasks_without_expert": {str(task): reason for task, reason in collection.without_expert.items()},
         "collection": identity, "provenance": collection.provenance},
    )  # fmt: skip
    for task in tasks:
        mine = [outcome for attempt, outcome in collection.outcomes.items() if attempt.task == task]
        remark = ", quarantined" if task in collection.quarantined else ""
        if task in collection.without_expert:
            remark = f", left out: {collection.without_expert[task]}"
        print(
            f"task {task} {instructions[task]!r}: {mine.count(KEPT)} kept, "
            f"{mine.count(FAILED)} not solved, {mine.count(LOST)} lost{remark}"
        )
    print(
        f"{statistics.episodes} demonstrations, {statistics.steps} steps, {len(kept) - already} of them new "
        f"in {time.monotonic() - start:.0f} s; data set in {folder}"
    )


if __name__ == "__main__":
    run_job(main, Settings)
