#!/usr/bin/env python
"""Train the latent reasoning of a cloned policy with asynchronous PPO in LIBERO.

Starts from --checkpoint, or without one from a short behaviour cloning that it runs first. Leaves the policy in
OUTPUT/checkpoint, its learning curve beside it, and metrics in MLflow. Ends with the first budget that is used up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avavla_ray.command_line import default_workers, run_job


@dataclass(frozen=True)
class Settings:
    """Settings of PPO. What is left out comes from the recipe."""

    checkpoint: Path | None = None
    """Policy to start from, as bc_libero wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    demos: str | None = None
    """Demonstrations that the policy was cloned from, a folder or a URI: they keep its action head in step."""
    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices, played in turn; all when left out."""
    env_steps: int | None = None
    """Budget of environment steps; the paper's 1.2 million when no budget is given."""
    minutes: float | None = None
    """Budget of wall time, without start-up."""
    updates: int | None = None
    """Budget of updates."""
    recipe: str = "paper"
    """Named training settings: paper, demo, or tiny."""
    update_decisions: int | None = None
    """Decisions an update waits for, over all learner ranks."""
    minibatch_decisions: int | None = None
    epochs: int | None = None
    policy_lr: float | None = None
    critic_lr: float | None = None
    gate_lr: float | None = None
    target_kl: float | None = None
    gamma: float | None = None
    gae_lambda: float | None = None
    max_lag: int | None = None
    """Fragments made by weights more than so many updates old are dropped."""
    demonstration_weight: float | None = None
    """Weight of the cloning loss on --demos at the start."""
    train_gate: bool | None = None
    """Train the exit gate too; the paper does it afterwards, and so does the recipe named after it."""
    exit_threshold: float | None = None
    """Of the gate in rollouts; the policy's own when left out."""
    num_runners: int = max(1, default_workers() - 1)
    """Rollout processes; one core is left to the learner."""
    simulators: int = 2
    """Simulators in each of them."""
    fragment_decisions: int = 16
    """Decisions that a simulator takes between two deliveries."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of their runner."""
    learners: int = 1
    """DeepSpeed ranks."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed shards: 1 optimizer, 2 and gradients, 3 and parameters."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    max_steps: int | None = None
    """Step limit of an episode; the suite's published one when left out."""
    preset: str = "small"
    """Policy to clone when there is no --checkpoint."""
    cloning_episodes: int = 10
    """Demonstrations a task to collect when there is no --checkpoint."""
    cloning_minutes: float = 2.0
    """Length of that cloning."""
    save_minutes: float = 5.0
    """Time between checkpoints that --resume can continue from."""
    output: Path = Path("runs/ppo")
    run_id: str | None = None
    """Identity of this run in MLflow; the output folder's name when left out."""
    resume: bool = False
    """Continue the run in the output folder from its newest checkpoint."""
    seed: int = 0
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


PPO_FIELDS = ("update_decisions", "minibatch_decisions", "epochs", "policy_lr", "critic_lr", "gate_lr", "target_kl",
              "gamma", "gae_lambda", "max_lag", "demonstration_weight", "train_gate",
              "isolate")  # fmt: skip
# May change from one --resume to the next.
OPEN_ENDED = ("env_steps", "minutes", "updates", "save_minutes", "num_runners", "output", "run_id", "resume",
              "tracking_uri")  # fmt: skip


def main(settings: Settings) -> None:
    from dataclasses import asdict, replace

    from actors.cloning_stream import check_units
    from actors.learner_group import check_trainable
    from actors.settings import recipe
    from avavla_ray.demonstrations.place import Place, absolute
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.errors import InputError, check_fraction
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.output import check_output

    # Everything that can be wrong is looked at before anything slow starts.
    ppo = recipe(settings.recipe, **{name: getattr(settings, name) for name in PPO_FIELDS})
    simulator = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        max_steps=settings.max_steps,
    )  # fmt: skip
    identify(simulator)
    if settings.num_runners < 1 or settings.simulators < 1 or settings.learners < 1:
        raise InputError("--num-runners, --simulators and --learners need to be at least 1 each")
    if settings.exit_threshold is not None:
        check_fraction("exit threshold", settings.exit_threshold)
    metadata = None if settings.demos is None else read_metadata(settings.demos)
    if settings.checkpoint is not None:
        given = load_checkpoint(settings.checkpoint)
        check_trainable(given.policy.config, settings.checkpoint)
        statistics = given.statistics_of(settings.unnorm_key)
        if metadata is not None:
            check_units(str(metadata.folder), metadata.statistics, statistics)
    elif metadata is not None:
        raise InputError("--demos goes with the --checkpoint that was cloned from them: give that too")
    elif settings.unnorm_key is not None:
        raise InputError("--unnorm-key names a data set of the --checkpoint: give that too")
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)

    from actors.async_ppo_config import AsyncPPOConfig
    from actors.cluster import connect
    from actors.ppo_run import Budget, finish, train
    from avavla_ray.training.engine import EngineSettings

    no_budget = settings.env_steps is None and settings.minutes is None and settings.updates is None
    budget = Budget(1_200_000 if no_budget else settings.env_steps, settings.minutes, settings.updates)
    identity = {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in asdict(settings).items() if name not in OPEN_ENDED
    }  # fmt: skip
    check_output(settings.output, {**identity, **asdict(ppo)}, settings.resume)
    connect(cpus=settings.num_runners + settings.learners)
    checkpoint, demos = settings.checkpoint, settings.demos
    if checkpoint is None:
        checkpoint, demos = clone_first(settings, uri)
    start = load_checkpoint(checkpoint)

    config = (
        AsyncPPOConfig()
        .env_runners(
            num_env_runners=settings.num_runners, num_envs_per_env_runner=settings.simulators,
            rollout_fragment_length=settings.fragment_decisions,
        )
        .learners(num_learners=settings.learners)
        .debugging(seed=settings.seed)
        .training(
            **asdict(ppo), checkpoint=str(checkpoint.absolute()), unnorm_key=settings.unnorm_key,
            demonstrations=demos and absolute(demos),
            simulator=replace(simulator, image_size=start.policy.config.backbone.camera_size),
            exit_threshold=settings.exit_threshold, run_name=settings.run_id or settings.output.name,
            engine=EngineSettings(zero_stage=settings.zero_stage),
        )
    )  # fmt: skip
    print(
        f"PPO from {checkpoint} ({start.stage}) on {settings.suite}, {settings.num_runners} runner(s) x "
        f"{settings.simulators} simulators, {settings.learners} learner rank(s), {ppo.update_decisions} decisions an "
        f"update{'' if demos is None else f', cloning {Place.of(demos)} beside it'}",
        flush=True,
    )
    with track(
        f"ppo {settings.output.name}", kind="ppo", uri=uri, run_key=config.run_name, resume=settings.resume,
        params={"suite": settings.suite, "preset": start.policy.config.preset, **asdict(ppo)},
        tags={"trained_from": start.digest},
    ) as run:  # fmt: skip
        algorithm, points = train(
            config, budget, settings.output, resume=settings.resume, save_minutes=settings.save_minutes,
            log=lambda point: run.log_metrics(point, step=int(point["total/env_steps"])),
        )  # fmt: skip
        summary = finish(algorithm, points, settings.output, seed=settings.seed, trained_from=start.digest)
        run.set_tags(summary["provenance"])
        for name in ("learning_curve.png", "summary.json"):
            run.log_file(settings.output / name)


def clone_first(settings: Settings, uri: str) -> tuple[Path, str]:
    """A policy to start from when none was given: collect a few demonstrations and clone them for a little while.

    Returns:
        The policy's checkpoint, and the demonstrations.
    """
    import bc_libero  # the job beside this one
    import collect_demos

    folder = settings.output / "cloning"
    demos, cloned = str(folder / "demos"), folder / "bc"
    if not (cloned / "checkpoint").is_dir():
        print(
            f"no --checkpoint: collecting {settings.cloning_episodes} demonstrations a task and cloning them for "
            f"{settings.cloning_minutes} minutes first, in {folder}",
            flush=True,
        )
        collect_demos.main(
            collect_demos.Settings(
                suite=settings.suite, tasks=settings.tasks, episodes=settings.cloning_episodes, assets=settings.assets,
                render=settings.render, output=Path(demos), seed=settings.seed, num_runners=settings.num_runners,
            )
        )  # fmt: skip
        bc_libero.main(
            bc_libero.Settings(
                demos=(demos,), preset=settings.preset, recipe="demo", minutes=settings.cloning_minutes, workers=1,
                output=cloned, resume=(cloned / "settings.json").is_file(), seed=settings.seed, tracking_uri=uri,
                run_id=f"{settings.run_id or settings.output.name}/cloning",
            )
        )  # fmt: skip
    return cloned / "checkpoint", demos


if __name__ == "__main__":
    run_job(main, Settings)
