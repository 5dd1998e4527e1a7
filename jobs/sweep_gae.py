#!/usr/bin/env python
"""Sweep PPO's credit assignment on real runs: GAE's lambda, discount, reward penalties, clip and max lag.

Ray Tune runs asynchronous PPO from one checkpoint at several points, stops the worse ones early (ASHA) or breeds them
(PBT), and logs each below the sweep's run in MLflow. The best point is written as a recipe that ppo_libero and
ppo_calvin take. See docs/sweeps.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import default_workers, run_job


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep over PPO runs."""

    checkpoint: Path
    """Policy that every run starts from, as behaviour cloning wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    demos: str | None = None
    """Demonstrations that the policy was cloned from: they keep its action head in step."""
    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices, played in turn; all when left out."""
    scheduler: Literal["asha", "pbt"] = "asha"
    """Stop what is behind after a ninth and a third of the steps, or let it go on from a copy of what leads."""
    over: tuple[str, ...] = ()
    """Parameters to sweep, of gae_lambda, gamma, lambda_entropy, lambda_delta, clip and max_lag; the others stay as the
    recipe has them. All that the recipe does not switch off (0) when left out."""
    trials: int = 9
    """Points: the recipe's own first, the others drawn; with pbt the population."""
    env_steps: int = 20_000
    """Environment steps of a run that goes to its end."""
    recipe: str = "libero"
    """Training settings around what is swept: libero, paper, demo, tabletop, tiny, or a file."""
    train_gate: bool | None = None
    """Train the exit gate too; the recipe's choice when left out."""
    exit_threshold: float | None = None
    """Of the gate in rollouts; the policy's own when left out."""
    num_runners: int = max(1, default_workers() - 1)
    """Rollout processes of a trial. With its learners and one processor more they say how many trials fit at once."""
    simulators: int = 2
    """Simulators in each of them."""
    fragment_decisions: int = 16
    """Decisions that a simulator takes between two deliveries."""
    learners: int = 1
    """DeepSpeed ranks of a trial."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of their runner."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    max_steps: int | None = None
    """Step limit of an episode; the suite's published one when left out."""
    save_updates: int = 5
    """Updates between checkpoints of a trial, which --resume goes on from; pbt has its own, four a run."""
    output: Path = Path("runs/sweep_gae")
    run_id: str | None = None
    """Identity of this sweep, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Go on with the sweep in the output folder."""
    seed: int = 0
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


MAY_CHANGE = ("resume", "tracking_uri")  # whatever else Tune keeps from the first start


def main(settings: Settings) -> None:
    from actors import ppo_job
    from avavla_ray.errors import InputError
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify
    from avavla_ray.storage.sharing import holds_keys
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.output import check_output

    # Everything that can be wrong is looked at before anything slow starts.
    for name in ("checkpoint", "demos"):
        if (given := getattr(settings, name)) is not None and holds_keys(given):
            raise InputError(
                f"--{name} has keys in its address, and Ray Tune writes down what trials are given: set them in the "
                "environment instead (docs/storage.md)"
            )
    for name in ("trials", "env_steps", "save_updates"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: give at least 1")
    if settings.scheduler == "pbt" and settings.trials < 4:
        raise InputError(f"--trials {settings.trials}: pbt copies the best quarter over the worst, give at least 4")
    job = ppo_job.Settings(
        checkpoint=settings.checkpoint, unnorm_key=settings.unnorm_key, demos=settings.demos, suite=settings.suite,
        tasks=settings.tasks, recipe=settings.recipe, train_gate=settings.train_gate, isolate=settings.isolate,
        exit_threshold=settings.exit_threshold, num_runners=settings.num_runners, simulators=settings.simulators,
        fragment_decisions=settings.fragment_decisions, learners=settings.learners, assets=settings.assets,
        render=settings.render, max_steps=settings.max_steps, output=settings.output, run_id=settings.run_id,
        seed=settings.seed,
        curriculum=False,  # a better point would play more of its hard tasks, and be judged by them
    )  # fmt: skip
    ppo = ppo_job.choose(job)
    simulator = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        max_steps=settings.max_steps,
    )  # fmt: skip
    identify(simulator)
    ppo_job.check(job, ppo)
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)

    from actors.cluster import connect
    from actors.ppo_run import quiet
    from actors.settings import recipe, save_recipe
    from actors.sweep_gae import ROWS, TrialRuns, last_rows, processors, sweep, trials_table
    from avavla_ray.files import write_text
    from avavla_ray.storage.names import named
    from avavla_ray.storage.recorded import recorded
    from avavla_ray.storage.sharing import portable
    from avavla_ray.training.devices import cluster_cpus, learners_gpus, ppo_gpus_each
    from avavla_ray.training.run_lock import RunLock
    from tune_spaces.gae import METRIC, defaults, in_use, scheduler, space

    quiet()
    over = settings.over or in_use(ppo)
    swept = space(over, settings.scheduler)
    start = load_checkpoint(settings.checkpoint)
    simulator = replace(simulator, image_size=start.policy.config.backbone.camera_size)
    config = ppo_job.configure(job, ppo, simulator, settings.checkpoint, settings.demos)
    config.training(checkpoint=portable(settings.checkpoint))  # trials read it, on other machines
    config.validate()
    identity = {
        name: recorded(value.absolute() if isinstance(value, Path) else value)
        for name, value in asdict(settings).items() if name not in MAY_CHANGE
    }  # fmt: skip
    check_output(settings.output, {**identity, **asdict(ppo)}, settings.resume)
    need = processors(config)
    connect(cpus=int(need))
    offered, there = cluster_cpus(), learners_gpus()
    gpus = ppo_gpus_each(None, settings.learners, there)
    config.learners(num_gpus_per_learner=gpus)
    room = min(offered // need, there // (gpus * settings.learners) if gpus else settings.trials)
    at_once = max(1, min(settings.trials, int(room)))
    print(
        f"{settings.trials} PPO runs of {settings.env_steps} environment steps from {named(settings.checkpoint)}, "
        f"{at_once} at once: each takes {need:g} of {offered:g} processors and {gpus * settings.learners:g} GPU(s)"
        + (", so they take turns" if at_once < settings.trials and settings.scheduler == "pbt" else ""),
        flush=True,
    )
    key = settings.run_id or settings.output.name
    tags = {"trained_from": start.digest}
    with (
        RunLock(settings.output),
        track(
            f"sweep {settings.output.name}", kind="sweep", uri=uri, run_key=key, resume=settings.resume, tags=tags,
            params={"scheduler": settings.scheduler, "over": ",".join(over), "suite": settings.suite,
                    "env_steps": settings.env_steps, "trials": settings.trials, **asdict(ppo)},
            output=settings.output,
        ) as parent,
    ):  # fmt: skip
        rows = settings.output / ROWS
        told = TrialRuns(settings.output.absolute(), uri, parent.run_id, key, tuple(swept), tags)
        trials, failed = sweep(
            config, swept, defaults(over, ppo),
            scheduler(settings.scheduler, settings.env_steps, rows.absolute(), swept, settings.seed), told,
            output=settings.output, trials=settings.trials, at_once=at_once, env_steps=settings.env_steps,
            save_updates=None if settings.scheduler == "pbt" else settings.save_updates,
            seed=settings.seed, resume=settings.resume,
        )  # fmt: skip
        ranked = last_rows(rows, trials)
        if not ranked:
            raise RuntimeError(f"no trial came to a result: {failed[0] if failed else 'all were interrupted'}")
        table = trials_table(ranked)
        best: dict[str, Any] = ranked[0]
        found = {name: value for name, value in best.items() if name not in ("config", "more")}
        own = recipe(settings.recipe).curriculum
        save_recipe(
            settings.output / "best_recipe.json", replace(ppo, curriculum=own, **best["config"]),
            trained_from=start.digest, suite=settings.suite, scheduler=settings.scheduler, **found,
        )  # fmt: skip
        write_text(settings.output / "trials.md", table)
        for name in ("best_recipe.json", "trials.md"):
            parent.log_file(settings.output / name)
        parent.log_metrics({METRIC: best[METRIC], "mean_latent_steps": best["mean_latent_steps"]})
        print(f"\n{table}\nbest: --recipe {settings.output / 'best_recipe.json'}", flush=True)
        if failed:
            raise RuntimeError(f"{len(failed)} trial(s) failed and are not in it: --resume tries again; {failed[0]}")


if __name__ == "__main__":
    run_job(main, Settings)
