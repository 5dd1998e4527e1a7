#!/usr/bin/env python
"""The whole mission on one task in a quarter of an hour: demonstrations, cloning, PPO, evaluation, comparison.

Runs the other jobs one after another, as a user would type them, and prints each command. `make demo` calls it.
"""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of the demonstration run."""

    suite: str = "libero_object"
    task: int = 0
    demonstrations: int = 30
    """Scripted-expert episodes to clone."""
    bc_minutes: float | None = None
    """Length of cloning; the recipe's when left out."""
    ppo_minutes: float = 3.5
    episodes: int = 10
    """Evaluation episodes a setting."""
    thresholds: tuple[float, ...] = (0.30, 0.55, 0.75)
    depths: tuple[int, ...] = (5,)
    assets: str = "bundled"
    render: str = "fast"
    num_runners: int = 2
    seed: int = 0
    output: Path | None = None
    """Folder of everything; the first of runs/demo, runs/demo-2, ... that is free when left out."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


def main(settings: Settings) -> None:
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.job_chain import run_stage
    from avavla_ray.policy.config import preset
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify
    from avavla_ray.tracking import check_store, default_uri

    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    identify(
        SimulatorConfig(suite=settings.suite, tasks=(settings.task,), assets=settings.assets, render=settings.render)
    )
    exit_settings(settings.thresholds, settings.depths, preset("small"))
    out, start = settings.output or _free_folder(), time.monotonic()
    if out.exists():
        raise InputError(f"{out} exists: give another --output")
    simulator = ["--suite", settings.suite, "--tasks", settings.task, "--assets", settings.assets]
    common = [*simulator, "--render", settings.render, "--num-runners", settings.num_runners, "--seed", settings.seed]
    tracked = ["--tracking-uri", uri]
    cloning = [] if settings.bc_minutes is None else ["--minutes", settings.bc_minutes]
    played = [f"{out.name}/evaluate-bc", f"{out.name}/evaluate-ppo"]  # another demo's are of another policy
    exits = ["--thresholds", *settings.thresholds, "--depths", *settings.depths, "--episodes", settings.episodes]

    stages = [
        ("1/5 demonstrations from the scripted expert", "collect_demos",
         [*common, "--episodes", settings.demonstrations, "--output", out / "demos"]),
        ("2/5 behaviour cloning: Ray Train and DeepSpeed", "bc_libero",
         ["--demos", out / "demos", "--recipe", "demo", *cloning, "--seed", settings.seed,
          "--output", out / "bc", *tracked]),
        ("3/5 asynchronous PPO from a pool of simulators", "ppo_libero",
         [*common, "--checkpoint", out / "bc/checkpoint", "--demos", out / "demos",
          "--recipe", "demo", "--minutes", settings.ppo_minutes, "--output", out / "ppo", *tracked]),
        ("4/5 evaluation: BC", "evaluate",
         [*common, *exits, "--checkpoint", out / "bc/checkpoint", "--label", "BC",
          "--output", out / "evaluate-bc", "--run-id", played[0], *tracked]),
        ("4/5 evaluation: PPO", "evaluate",
         [*common, *exits, "--checkpoint", out / "ppo/checkpoint", "--label", "PPO",
          "--output", out / "evaluate-ppo", "--run-id", played[1], *tracked]),
        ("5/5 comparison", "compare",
         ["--suite", settings.suite, "--run-ids", *played,
          "--output", out / "compare", *tracked]),
    ]  # fmt: skip
    for title, job, words in stages:
        run_stage(title, job, words)

    print(f"\nThe demo took {(time.monotonic() - start) / 60:.1f} minutes. Look at:")
    for path in [out / "compare/success_against_latent_steps.png", *sorted(out.glob("evaluate-*/videos/*.mp4"))]:
        print(f"  {path}")
    print(f"Open the runs with: {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {uri}")


def _free_folder() -> Path:
    """A finished demo is never overwritten."""
    names = itertools.chain(["runs/demo"], (f"runs/demo-{n}" for n in itertools.count(2)))
    return next(path for path in map(Path, names) if not path.exists())


if __name__ == "__main__":
    run_job(main, Settings)
