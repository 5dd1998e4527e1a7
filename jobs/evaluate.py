#!/usr/bin/env python
"""Evaluate a checkpoint on a benchmark's fixed initial states, at a list of exit thresholds and fixed depths.

Writes one result file a setting, a Markdown table and one video a task, and logs a run a setting to MLflow. With
--offline it decides along demonstrations instead, without a simulator, and measures how far its actions are from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from avavla_ray.evaluation.exit_setting import ExitSetting
    from avavla_ray.policy.checkpoint import Checkpoint
    from avavla_ray.simulators.base import SuiteSpec


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation."""

    checkpoint: Path
    """Checkpoint folder, as bc_libero or ppo_libero wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    offline: bool = False
    """Decide along the demonstrations of --demos, teacher-forced, and compare actions. Takes the episodes that were
    held out of training, where the checkpoint names them."""
    demos: tuple[str, ...] = ()
    """With --offline: data sets, each a folder or a URI such as s3://bucket/demos."""
    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    episodes: int | None = None
    """Episodes a task: the first so many of the benchmark's fixed initial states, 50 when left out; with --offline the
    first so many demonstrations, all when left out."""
    thresholds: tuple[float, ...] = (0.30, 0.40, 0.50, 0.55, 0.65, 0.75, 0.85, 0.95, 1.00)
    """Exit thresholds; the default is the paper's list (arXiv 2606.15099). `--thresholds` with nothing after it: none,
    for a policy without a latent loop together with `--depths 0`."""
    depths: tuple[int, ...] = ()
    """Fixed numbers of latent steps to compare with."""
    label: str | None = None
    """Name of the checkpoint in tables and plots; its training stage when left out."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "reference"
    """Publish with reference; fast is for quick looks."""
    max_steps: int | None = None
    """Step limit; the suite's published one when left out. Another one is a deviation and is recorded."""
    videos: bool = True
    """Write one MP4 a task: its first initial state at the first setting."""
    output: Path = Path("runs/evaluate")
    run_id: str | None = None
    """Identity of this evaluation in MLflow; the output folder's name when left out."""
    resume: bool = False
    """Keep the finished episodes found in the output folder."""
    seed: int = 7
    num_runners: int = default_workers()
    """Actors that play, or walk along demonstrations, side by side."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of the actor."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


ONLY_SIMULATED = ("suite", "assets", "render", "max_steps", "videos", "isolate")
FIXED_STATES = 50


def main(settings: Settings) -> None:
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.tracking import check_store, default_uri

    # Everything that can be wrong is looked at before anything slow starts.
    _check(settings)
    checkpoint = load_checkpoint(settings.checkpoint)
    exits = exit_settings(settings.thresholds, settings.depths, checkpoint.policy.config)
    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    (_walk if settings.offline else _play)(settings, checkpoint, exits, uri)


def _check(settings: Settings) -> None:
    """Refuse what --offline has no use for, and the other way round."""
    from avavla_ray.errors import InputError

    defaults = {each.name: each.default for each in fields(Settings)}
    if settings.demos and not settings.offline:
        raise InputError("--demos are walked with --offline: add it, or leave out --demos")
    idle = [name for name in ONLY_SIMULATED if settings.offline and getattr(settings, name) != defaults[name]]
    if idle:
        raise InputError(f"--offline simulates nothing: leave out --{idle[0].replace('_', '-')}")
    if settings.episodes is not None and settings.episodes < 1:
        raise InputError(f"--episodes {settings.episodes}: give at least 1")


def _walk(settings: Settings, checkpoint: Checkpoint, exits: tuple[ExitSetting, ...], uri: str) -> None:
    """Evaluate offline, along demonstrations."""
    from actors.offline_run import evaluate_offline
    from avavla_ray.evaluation.offline_data import choose_data
    from avavla_ray.evaluation.offline_results import offline_tables

    chosen = choose_data(
        settings.demos, checkpoint, unnorm_key=settings.unnorm_key, tasks=settings.tasks, limit=settings.episodes
    )
    label = settings.label or checkpoint.stage
    results = evaluate_offline(
        checkpoint, chosen, exits, label=label, output=settings.output, run_id=settings.run_id or settings.output.name,
        resume=settings.resume, seed=settings.seed, num_runners=settings.num_runners, uri=uri,
    )  # fmt: skip
    print(f"\n{label}, offline\n\n{offline_tables(results)}\nresults in {settings.output}")


def _play(settings: Settings, checkpoint: Checkpoint, exits: tuple[ExitSetting, ...], uri: str) -> None:
    """Evaluate in the simulator."""
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.results import Ledger, markdown_table, summarise
    from avavla_ray.evaluation.video import write_video
    from avavla_ray.files import write_json, write_text
    from avavla_ray.policy.agent import Agent
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify, suite_spec
    from avavla_ray.tracking import track

    policy, statistics = checkpoint.policy.config, checkpoint.statistics_of(settings.unnorm_key)
    config = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        image_size=policy.backbone.camera_size, max_steps=settings.max_steps,
    )  # fmt: skip
    data = identify(config)
    suite = suite_spec(settings.suite)
    tasks = settings.tasks or tuple(range(len(suite.instructions)))
    episodes = FIXED_STATES if settings.episodes is None else settings.episodes
    if episodes > suite.num_initial_states:
        raise InputError(f"--episodes {episodes}: {settings.suite} has 1 to {suite.num_initial_states} a task")

    label = settings.label or checkpoint.stage
    identity = {
        "suite": settings.suite, "checkpoint": checkpoint.digest, "statistics": statistics.name,
        **data, "render": settings.render, "max_steps": settings.max_steps or suite.max_steps, "seed": settings.seed,
    }  # fmt: skip
    ledger = Ledger(settings.output / "episodes.jsonl", identity, settings.resume)

    from actors.cluster import connect
    from actors.evaluator import Episode, evaluate

    connect(cpus=settings.num_runners)
    filmed = exits[0].label
    videos = {task: settings.output / "videos" / f"{label}_task{task}_{filmed}.mp4" for task in tasks}
    todo = []
    for task in tasks:
        for state in range(episodes):
            for setting in exits:
                film = settings.videos and state == 0 and setting.label == filmed and not videos[task].exists()
                if film or (setting.label, task, state) not in ledger:
                    todo.append(Episode(setting, task, state, film))
    total = len(tasks) * episodes * len(exits)

    with Progress(total, f"evaluate {label}", "episodes", done=max(0, total - len(todo))) as progress:

        def finished(episode, record, film):
            if (record.setting, record.task, record.initial_state) not in ledger:
                ledger.add(record)
            if film is not None:
                outcome = f"{'success' if record.success else 'no success'} after {record.steps} steps"
                write_video(
                    videos[episode.task],
                    film,
                    title=f"{label}: {suite.instructions[episode.task]}",
                    outcome=outcome,
                )
            whole = [r.success for r in ledger.records.values() if r.error is None]
            progress.advance(success=sum(whole) / len(whole) if whole else "not known yet")

        simulator = evaluate(
            Agent(checkpoint.policy, statistics), config, todo, settings.num_runners, finished,
            isolate=settings.isolate,
        )  # fmt: skip

    described = provenance(
        seed=settings.seed, simulator=simulator, trained=checkpoint.provenance,
        deviations=_deviations(settings, suite, data, episodes),
    )  # fmt: skip
    instructions = dict(enumerate(suite.instructions))
    results = []
    asked = [r for r in ledger.records.values() if r.task in tasks and r.initial_state < episodes]
    for setting in exits:
        result = summarise(
            setting, asked, instructions,
            label=label, stage=checkpoint.stage, checkpoint_path=str(settings.checkpoint),
            **identity, provenance=described,
        )  # fmt: skip
        results.append(result)
        path = settings.output / f"{setting.label}.json"
        write_json(path, result)
        with track(
            f"{label} {setting.title}", kind="evaluation", uri=uri,
            run_key=f"{settings.run_id or settings.output.name}/{setting.label}", resume=settings.resume,
            # The scatter tab of MLflow's compare page opens on the first parameter by name: keep it the threshold's.
            params={
                "exit_setting": setting.title, "suite": settings.suite, "tasks": ",".join(map(str, tasks)),
                **({"exit_threshold": setting.exit_threshold} if setting.exit_threshold is not None else {}),
                **({"fixed_depth": setting.fixed_depth} if setting.fixed_depth is not None else {}),
            },
            tags={"checkpoint": checkpoint.digest, "label": label, **described},
        ) as run:  # fmt: skip
            numbers = (
                "success_rate",
                "mean_latent_steps",
                "ms_mean",
                "ms_p50",
                "ms_p90",
                "episodes",
                "successes",
                "aborted_episodes",
            )
            run.log_metrics({name: result[name] for name in numbers if result[name] is not None})
            run.log_metrics({"quarantined_tasks": len(result["quarantined_tasks"])})
            run.log_metrics({"success_rate_low": result["ci95"][0], "success_rate_high": result["ci95"][1]})
            run.log_file(path)
            for video in videos.values():
                if setting.label == filmed and video.exists():
                    run.log_file(video, "videos")
    table = markdown_table(results)
    write_text(settings.output / "table.md", table)
    print(
        f"\n{label} on {settings.suite}, task(s) {', '.join(map(str, tasks))}\n\n{table}\nresults in {settings.output}"
    )


def _deviations(settings: Settings, suite: SuiteSpec, data: dict[str, Any], episodes: int) -> list[str]:
    """How this evaluation differs from the benchmark's published protocol."""
    found = [suite.deviation] if suite.deviation else []
    if settings.render != "reference":
        found.append(f"render {settings.render} instead of reference")
    if data.get("assets", "official") != "official":
        found.append(f"assets {settings.assets} instead of official")
    if settings.max_steps not in (None, suite.max_steps):
        found.append(f"{settings.max_steps} steps instead of {suite.max_steps}")
    if episodes < suite.num_initial_states:
        found.append(f"{episodes} initial states a task instead of {suite.num_initial_states}")
    if settings.tasks:
        found.append(f"tasks {list(settings.tasks)} only")
    return found


if __name__ == "__main__":
    run_job(main, Settings)
