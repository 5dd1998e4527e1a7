#!/usr/bin/env python
"""Evaluate a checkpoint on a benchmark's fixed initial states, at a list of exit thresholds and fixed depths.

Writes one result file a setting, a Markdown table and one video a task, and logs a run a setting to MLflow; of several
suites, each to a folder of its own. With --offline it decides along demonstrations instead, without a simulator, and
measures how far its actions are from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avavla_ray.command_line import default_workers, policy_servers, run_job

if TYPE_CHECKING:
    from avavla_ray.evaluation.exit_setting import ExitSetting
    from avavla_ray.policy.checkpoint import Checkpoint
    from avavla_ray.policy.config import PolicyConfig


ONLY_SIMULATED = (
    "suite", "assets", "render", "max_steps", "videos", "isolate", "placement", "num_servers", "server_gpus",
)  # fmt: skip


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
    suite: tuple[str, ...] = ("libero_object",)
    """One or several. calvin_d_chains plays CALVIN's 1,000 chains of five tasks; calvin_d plays single tasks."""
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    episodes: int | None = None
    """Episodes a task: the first so many of the benchmark's fixed initial states, 50 or all of fewer when left out;
    of chains the first so many of all 1,000; with --offline the first so many demonstrations, all when left out."""
    thresholds: tuple[float, ...] | None = None
    """Exit thresholds; the nine of the paper (arXiv 2606.15099) when left out. `--thresholds` with nothing after it:
    none, for a policy without a latent loop together with `--depths 0`."""
    exit_preset: Path | None = None
    """File with the exit setting that jobs/sweep_exit.py found, to evaluate in place of thresholds."""
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
    """Identity of this evaluation, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Keep the finished episodes found in the output folder."""
    seed: int = 7
    num_runners: int = default_workers()
    """Actors that play, or walk along demonstrations, side by side."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of the actor."""
    placement: Literal["copy", "server"] = "copy"
    """Whether each actor decides with a copy of the policy, on the CPU, or asks a policy server."""
    num_servers: int | None = None
    """Policy servers, with --placement server; 1 when left out."""
    server_gpus: float | None = None
    """Of each server; 0, or left out, decides on the CPU."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


def main(settings: Settings) -> None:
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.tracking import check_store, default_uri

    # Everything that can be wrong is looked at before anything slow starts.
    _check(settings)
    checkpoint = load_checkpoint(settings.checkpoint)
    exits = _exits(settings, checkpoint.policy.config)
    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    (_walk if settings.offline else _play)(settings, checkpoint, exits, uri)


def _check(settings: Settings) -> None:
    """Refuse what --offline has no use for, and the other way round; and numbers out of range."""
    from avavla_ray.errors import InputError

    defaults = {each.name: each.default for each in fields(Settings)}
    if settings.demos and not settings.offline:
        raise InputError("--demos are walked with --offline: add it, or leave out --demos")
    idle = [name for name in ONLY_SIMULATED if settings.offline and getattr(settings, name) != defaults[name]]
    if idle:
        raise InputError(f"--offline simulates nothing: leave out --{idle[0].replace('_', '-')}")
    if settings.episodes is not None and settings.episodes < 1:
        raise InputError(f"--episodes {settings.episodes}: give at least 1")
    if settings.thresholds is not None and settings.exit_preset is not None:
        raise InputError("--exit-preset says how long to think: give no --thresholds beside it")
    policy_servers(settings.placement, settings.num_servers, settings.server_gpus)
    if not settings.suite:
        raise InputError("--suite: give at least one")


def _exits(settings: Settings, policy: PolicyConfig) -> tuple[ExitSetting, ...]:
    """That of the preset first, where there is one."""
    from avavla_ray.evaluation.exit_setting import exit_settings, load_exit_preset
    from avavla_ray.policy.config import PAPER_THRESHOLDS

    if settings.exit_preset is None:
        thresholds = PAPER_THRESHOLDS if settings.thresholds is None else settings.thresholds
        return exit_settings(thresholds, settings.depths, policy)
    preset = load_exit_preset(settings.exit_preset)
    preset.check(policy)
    others = exit_settings((), settings.depths, policy) if settings.depths else ()
    return (preset, *(setting for setting in others if setting != preset))


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
    from actors.cluster import connect
    from actors.evaluation_run import EvaluationPlan
    from actors.evaluation_suites import evaluations
    from avavla_ray.errors import InputError

    plan = EvaluationPlan(
        checkpoint, checkpoint.statistics_of(settings.unnorm_key), exits, settings.label or checkpoint.stage,
        run_id=settings.run_id or settings.output.name, uri=uri, tasks=settings.tasks, episodes=settings.episodes,
        assets=settings.assets, render=settings.render, max_steps=settings.max_steps, videos=settings.videos,
        resume=settings.resume, seed=settings.seed, num_runners=settings.num_runners, isolate=settings.isolate,
        servers=policy_servers(settings.placement, settings.num_servers, settings.server_gpus),
        server_gpus=settings.server_gpus or 0,
    )  # fmt: skip
    unlogged = []
    with evaluations(plan, settings.suite, settings.output) as to_do:
        connect(cpus=plan.num_runners + plan.servers)
        for evaluation in to_do:
            table, why = evaluation.run()
            print(f"\n{table}\nresults in {evaluation.output}", flush=True)
            unlogged += [why] if why else []
    if unlogged:
        raise InputError("; ".join(unlogged))


if __name__ == "__main__":
    run_job(main, Settings)
