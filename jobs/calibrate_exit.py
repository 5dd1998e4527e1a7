#!/usr/bin/env python
"""Calibrate the exit gate of a PPO checkpoint on its own decisions: stage 4 of arXiv 2606.15099.

Plays episodes from drawn starts, labels each latent state by the value head (1 where thinking on gains less than
delta), and trains the gate, and nothing else, on them. Leaves the policy in OUTPUT/checkpoint, with a reliability
diagram, label rates, and the exits to expect at the paper's thresholds. docs/calibration.md says what is what.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from avavla_ray.training.gate_training import GateSettings


@dataclass(frozen=True)
class Settings:
    """Settings of exit calibration; the paper's where it gives any."""

    checkpoint: Path
    """Checkpoint folder, as PPO wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    episodes: int = 20
    """Episodes a task, from drawn starts; at least 3. With --resume more may be added."""
    exit_threshold: float | None = None
    """Play with the exits of the present gate at this threshold; to full depth when left out. Either way the gate
    learns from the states of a full-depth unroll."""
    delta: float = 0.05
    """Smallest gain of value that is worth thinking on for."""
    lookahead: int = 3
    """Latent steps that thinking on may take to gain it."""
    steps: int = 10_000
    """Optimizer steps."""
    batch: int = 64
    """Decisions in each."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    keep: Literal["best", "last"] = "best"
    """Which gate to keep: that of the lowest validation loss, or the last."""
    held_out: float = 0.15
    """Share of each task's episodes for validation, and as much again for the test."""
    post: Literal["none", "temperature", "temperature_by_step", "isotonic"] = "none"
    """Map the trained gate's logits, as fitted on the validation episodes."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    max_steps: int | None = None
    """Step limit of an episode; the suite's published one when left out."""
    output: Path = Path("runs/calibrate_exit")
    run_id: str | None = None
    """Identity of this run, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Keep the episodes found in the output folder, and train on them anew."""
    seed: int = 0
    num_runners: int = default_workers()
    """Actors that play side by side."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of the actor."""
    register: str | None = None
    """Name of a model in MLflow's registry: the checkpoint becomes its newest version."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


def main(settings: Settings) -> None:
    from actors.calibration_run import (
        DECISIONS,
        calibrate,
        check_calibratable,
        finish,
        goes_on,
        load_played,
        note_simulator,
        noted_simulator,
    )
    from avavla_ray.model_registry import check_name
    from avavla_ray.policy.agent import Agent
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify, suite_spec
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.gate_decisions import DecisionFolder, PlayedEpisode, Start
    from avavla_ray.training.output import check_output

    # Everything that can be wrong is looked at before anything slow starts.
    training = choose(settings)
    checkpoint = load_checkpoint(settings.checkpoint)
    check_calibratable(checkpoint)
    statistics = checkpoint.statistics_of(settings.unnorm_key)
    simulator = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        image_size=checkpoint.policy.config.backbone.camera_size, max_steps=settings.max_steps,
    )  # fmt: skip
    data = identify(simulator)
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)
    check_name(settings.register)
    identity = {
        "checkpoint": checkpoint.digest, "statistics": statistics.name, "suite": settings.suite, **data,
        "tasks": settings.tasks, "render": settings.render, "max_steps": settings.max_steps,
        "exit_threshold": settings.exit_threshold, "seed": settings.seed, "starts": "not those of demonstrations",
    }  # fmt: skip
    recipe = {**asdict(training), "post": settings.post, "episodes": settings.episodes}
    check_output(settings.output, identity, settings.resume)

    from actors.calibration import collect
    from actors.cluster import connect

    tasks = settings.tasks or range(len(suite_spec(settings.suite).instructions))
    starts = [Start(task, number) for number in range(settings.episodes) for task in tasks]
    folder = DecisionFolder(settings.output / DECISIONS)
    folder.tidy()
    todo = [start for start in starts if start not in folder]
    if todo:
        connect(cpus=settings.num_runners)
    with track(
        f"calibrate {settings.output.name}", kind="calibration", uri=uri, resume=goes_on(settings.output, recipe),
        run_key=settings.run_id or settings.output.name, output=settings.output,
        params={"suite": settings.suite, **recipe},
        tags={"checkpoint": checkpoint.digest},
    ) as tracked:  # fmt: skip
        with Progress(len(starts), "playing", "episodes", done=len(starts) - len(todo)) as progress:
            won: list[bool] = []

            def finished(played: PlayedEpisode, described: dict[str, object]) -> None:
                note_simulator(folder, described)
                folder.add(played)
                won.append(played.success)
                progress.advance(success=sum(won) / len(won))

            lost = collect(
                Agent(checkpoint.policy, statistics), simulator, todo, settings.num_runners, finished,
                seed=settings.seed, exit_threshold=settings.exit_threshold, isolate=settings.isolate,
            )  # fmt: skip
        calibrated = calibrate(checkpoint.policy, load_played(folder, starts), training, settings.post, tracked)
        described = provenance(
            seed=settings.seed, simulator=noted_simulator(folder), trained=checkpoint.provenance,
            trained_from=checkpoint.digest, calibration={**identity, **recipe},
        )  # fmt: skip
        finish(
            calibrated, checkpoint, training, settings.output, tracked,
            post=settings.post, lost=lost, described=described,
        )  # fmt: skip
        if settings.register is not None:
            tracked.register_checkpoint(settings.output / "checkpoint", settings.register)


def choose(settings: Settings) -> GateSettings:
    """How the gate is trained; refuses numbers that make no sense."""
    from avavla_ray.errors import InputError, check_fraction
    from avavla_ray.training.gate_training import GateSettings

    if settings.episodes < 3:
        raise InputError(f"--episodes {settings.episodes}: give 3 or more, for training, validation and test")
    if settings.num_runners < 1:
        raise InputError(f"--num-runners {settings.num_runners}: give at least 1")
    if settings.exit_threshold is not None:
        check_fraction("exit threshold", settings.exit_threshold)
    return GateSettings(
        settings.delta, settings.lookahead, settings.steps, settings.batch, settings.learning_rate,
        settings.weight_decay, settings.keep, settings.held_out, seed=settings.seed,
    )  # fmt: skip


if __name__ == "__main__":
    run_job(main, Settings)
