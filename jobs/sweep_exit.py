#!/usr/bin/env python
"""Find out how long a checkpoint should think: sweep its exit thresholds, or search them under a budget.

--search grid plays the paper's nine thresholds and fixed depths on any number of suites and writes its Table 5, as
Markdown, CSV and LaTeX, and the Pareto plot. --search tpe and gp look for thresholds, one for all, one a latent step or
one a family of tasks, with the highest success under --max-steps-mean or --max-ms, or along the front without either.
The best setting is written as a preset that evaluate, serve and ppo take. See docs/sweeps.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import default_workers, policy_servers, run_job

if TYPE_CHECKING:
    from actors.sweep_subject import Subject
    from avavla_ray.evaluation.budget import Budget
    from avavla_ray.evaluation.exit_setting import ExitSetting

DEPTHS = (0, 1, 3, 5, 10)


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep over exit thresholds."""

    checkpoint: Path
    """Checkpoint folder, as bc_libero or ppo_libero wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    suite: tuple[str, ...] = ("libero_object",)
    """Suites; a search takes one."""
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    episodes: int | None = None
    """Initial states a task that settings are compared on, the same for all: the first so many; 50 when left out."""
    search: Literal["grid", "tpe", "gp"] = "grid"
    """Play a list, or let Optuna's tree-structured Parzen estimator or a Gaussian process propose."""
    thresholds: tuple[float, ...] | None = None
    """Thresholds to play in any case; the paper's nine when left out, none with a search."""
    depths: tuple[int, ...] | None = None
    """Fixed depths to play in any case, besides the policy's full depth, which all are compared with; those of 0, 1, 3,
    5, 10 that the policy has when left out, none with a search."""
    proposed: int = 0
    """More thresholds for the grid, where a replay of the gate's scores sees the widest gaps between mean steps."""
    by: Literal["global", "depth", "family"] = "global"
    """Search one threshold, one a latent step, or one a family of tasks (the first verb of the instruction)."""
    max_steps_mean: float | None = None
    """Budget: mean latent steps a decision."""
    max_ms: float | None = None
    """Budget: mean milliseconds a decision, on this machine as loaded as it is."""
    recommend: Literal["any", "adaptive"] = "any"
    """What may become the preset: any setting, or only those where the gate decides; fixed depths are played anyway."""
    give_up: float = 0.01
    """Without a budget: share of success that may be given up for a cheaper setting; 0.01 is one point."""
    trials: int = 20
    """Settings that a search judges."""
    episodes_budget: int | None = None
    """Episodes of a search in all, confirmation aside; what is listed and what is in the ledger counts."""
    error_rate: float = 0.05
    """How often a setting may be given up early that would not have been worse, or not over the budget."""
    confirm: int | None = None
    """Initial states a task, beyond those of the search, to play the best setting again on; as many again, or as the
    suite has, when left out."""
    label: str | None = None
    """Name of the checkpoint in tables and plots; its training stage when left out."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "reference"
    """Publish with reference; fast is for quick looks."""
    max_steps: int | None = None
    """Step limit of an episode; the suite's published one when left out."""
    output: Path = Path("runs/sweep_exit")
    run_id: str | None = None
    """Identity of this sweep, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Keep the finished episodes and trials found in the output folder."""
    seed: int = 7
    num_runners: int = default_workers()
    """Actors that play side by side."""
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
    from actors.sweep_subject import subject_of
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track

    # Everything that can be wrong is looked at before anything slow starts.
    budget = _budget(settings)
    _check(settings, budget)
    subjects = [
        subject_of(
            settings.checkpoint, suite, unnorm_key=settings.unnorm_key, tasks=settings.tasks, states=settings.episodes,
            confirm=settings.confirm, label=settings.label, assets=settings.assets, render=settings.render,
            max_steps=settings.max_steps, seed=settings.seed, on_gpu=bool(settings.server_gpus),
        )
        for suite in dict.fromkeys(settings.suite)
    ]  # fmt: skip
    listed = _listed(settings, subjects[0])
    if settings.search != "grid":
        _check_search(settings, subjects[0], len(listed))
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)

    from actors.cluster import connect
    from actors.sweep_advice import advise
    from actors.sweep_exit import Sweep
    from actors.sweep_report import Report

    for subject in subjects:
        Sweep.check(subject, settings, budget, listed)
    servers = policy_servers(settings.placement, settings.num_servers, settings.server_gpus)
    connect(cpus=settings.num_runners + servers + 1)
    key = settings.run_id or settings.output.name
    with track(
        f"sweep {settings.output.name}", kind="sweep", uri=uri, run_key=key, resume=settings.resume,
        params={
            "search": settings.search, "by": settings.by, "budget": str(budget), "suite": ",".join(settings.suite),
            "episodes": subjects[0].states, "trials": settings.trials, "error_rate": settings.error_rate,
        },
        tags={"checkpoint": subjects[0].checkpoint.digest, "label": subjects[0].label}, output=settings.output,
    ) as parent:  # fmt: skip
        report = Report(settings.output, uri, parent, key, settings.resume)
        results: list[dict[str, Any]] = []
        for subject in subjects:
            with Sweep(subject, settings, report, servers) as sweep:
                sweep.play(listed)
                if settings.proposed:
                    sweep.play(sweep.propose(settings.proposed))
                if settings.search != "grid":
                    sweep.search(budget)
                results += sweep.results()
                if len(subjects) == 1:
                    advise(settings, report, results, budget, sweep)
        if len(subjects) > 1:
            advise(settings, report, results, budget)
        report.log_rest()


def _budget(settings: Settings) -> Budget | None:
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.budget import MILLISECONDS, STEPS, Budget

    if settings.max_steps_mean is not None and settings.max_ms is not None:
        raise InputError("--max-steps-mean and --max-ms: one budget at a time")
    if settings.max_steps_mean is not None:
        return Budget(STEPS, settings.max_steps_mean)
    return None if settings.max_ms is None else Budget(MILLISECONDS, settings.max_ms)


def _check(settings: Settings, budget: Budget | None) -> None:
    """Refuse numbers out of range, and what would change nothing."""
    from avavla_ray.errors import InputError
    from avavla_ray.simulators.registry import CALVIN_CHAIN_SUITES

    defaults = {each.name: each.default for each in fields(Settings)}

    def given(*names: str) -> str | None:
        """The first of these that is."""
        return next((f"--{n.replace('_', '-')}" for n in names if getattr(settings, n) != defaults[n]), None)

    if not settings.suite:
        raise InputError("no suite to play: give --suite")
    for suite in settings.suite:
        if suite in CALVIN_CHAIN_SUITES:
            raise InputError(f"--suite {suite}: a sweep plays single tasks: give --suite {suite.rsplit('_', 1)[0]}")
    if settings.search == "grid" and (idle := given("by", "trials", "error_rate", "episodes_budget")):
        raise InputError(f"{idle} goes with a search, a grid plays what is listed: add --search tpe, or leave it out")
    if not 0 <= settings.give_up < 1:
        raise InputError(f"--give-up {settings.give_up}: give a share, 0.01 is one point")
    if budget is not None and given("give_up"):
        raise InputError("--give-up goes without a budget, under which the highest success wins: leave out one of them")
    policy_servers(settings.placement, settings.num_servers, settings.server_gpus)
    if settings.num_runners < 1:
        raise InputError(f"--num-runners {settings.num_runners}: give at least 1")


def _listed(settings: Settings, subject: Subject) -> tuple[ExitSetting, ...]:
    """What is played in any case."""
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.policy.config import PAPER_THRESHOLDS

    policy = subject.checkpoint.policy.config
    grid, thinks = settings.search == "grid", policy.latent.enabled
    thresholds = settings.thresholds if settings.thresholds is not None else PAPER_THRESHOLDS if grid and thinks else ()
    depths = settings.depths
    if depths is None:
        depths = tuple(depth for depth in DEPTHS if depth <= subject.depth) if grid else ()
    depths = tuple(dict.fromkeys((*depths, subject.depth)))
    if settings.recommend == "adaptive" and not (thresholds or (settings.search != "grid" and thinks)):
        raise InputError("--recommend adaptive: no threshold would be played: give --thresholds, or leave it out")
    if settings.proposed < 0:
        raise InputError(f"--proposed {settings.proposed}: give 0 or more")
    if settings.proposed and len(set(settings.suite)) > 1:
        raise InputError("--proposed takes one --suite: a replay of another one would propose other thresholds")
    if settings.proposed and not thinks:
        raise InputError("--proposed: this policy has no latent loop, and so no gate to replay: leave it out")
    return exit_settings(thresholds, depths, policy)


def _check_search(settings: Settings, subject: Subject, listed: int) -> None:
    """Refuse a search that can't be, after so many settings that are played in any case."""
    from avavla_ray.errors import InputError
    from tune_spaces.exit_thresholds import ExitSpace

    if len(settings.suite) > 1:
        raise InputError(f"--search {settings.search} takes one --suite: it has one pool of simulators")
    if settings.proposed:
        raise InputError("--proposed goes with --search grid: a search begins with what the replay proposes anyway")
    if settings.trials < 1:
        raise InputError(f"--trials {settings.trials}: give at least 1")
    if not 0 < settings.error_rate < 1:
        raise InputError(f"--error-rate {settings.error_rate}: give a number between 0 and 1")
    episodes = listed * len(subject.planned)
    if settings.episodes_budget is not None and settings.episodes_budget <= episodes:
        raise InputError(
            f"--episodes-budget {settings.episodes_budget}: what is played in any case, full depth and what is listed, "
            f"takes {episodes} episodes: give more, or fewer --thresholds, --depths, --tasks or --episodes"
        )
    ExitSpace.of(settings.by, subject.depth, subject.spec.instructions)


if __name__ == "__main__":
    run_job(main, Settings)
