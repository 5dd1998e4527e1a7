#!/usr/bin/env python
"""Which way of doing PPO learns fastest: variants side by side, over seeds, against environment steps and time.

Trains every variant with every seed from the same policy, plays the last policy of each from the same initial states,
and leaves a picture for each question and one table. Runs the other jobs one after another.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from actors.settings import PPOSettings
    from avavla_ray.evaluation.ppo_study import Way
    from avavla_ray.evaluation.study_chain import Chain


@dataclass(frozen=True)
class Settings:
    """Settings of the study (docs/study.md)."""

    suite: str = "tabletop"
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    panels: tuple[str, ...] = ("asynchrony", "staleness", "what_learns", "cloning")
    """What is compared. The base of all of them is always trained."""
    checkpoint: Path | None = None
    """Policy to start from; cloned for a short while when left out."""
    demos: str | None = None
    """Demonstrations that it was cloned from; collected from the scripted expert when both are left out."""
    recipe: str = "demo"
    """PPO of the base: a name, or a file of settings."""
    train_actions: bool = False
    """The base learns from its executed chunks, too."""
    env_steps: int = 100_000
    """Budget of each run."""
    seeds: tuple[int, ...] = (0, 1)
    episodes: int = 50
    """Evaluation episodes a task, of the last policy of each run."""
    depth: int = 5
    """Fixed number of latent steps in those."""
    simulators: int = 2
    """Simulators in each rollout process."""
    fragment_decisions: int = 16
    """Decisions that a simulator takes between two deliveries."""
    num_runners: int = max(1, default_workers() - 1)
    """Rollout processes; one core is left to the learner."""
    max_steps: int | None = None
    assets: str = "bundled"
    render: str = "fast"
    preset: str = "small"
    """Policy to clone when there is no --checkpoint."""
    demonstrations: int = 30
    """Episodes a task to collect for that."""
    noise: float = 0.0
    """Of the expert's motions in these."""
    speed: float = 1.0
    """Share of its own speed that the expert shows: of a slow teacher PPO has something to find."""
    bc_recipe: str = "demo"
    """Settings of that cloning."""
    bc_steps: int | None = None
    """Length of that cloning; the recipe's when left out."""
    seed: int = 0
    """Of demonstrations and cloning."""
    output: Path = Path("runs/study")
    run_id: str | None = None
    """Identity of this study, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Go on in the output folder: what is finished is not done again."""
    publish: Path | None = None
    """Copy the study there in the end, for instance to results/study: table, pictures, and the curve of each run."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


LENGTH = "env_steps.json"  # the largest budget that the folder's runs were started with
# From one --resume to the next. All else is what makes runs comparable.
MAY_CHANGE = ("panels", "env_steps", "seeds", "episodes", "output", "run_id", "resume", "publish", "tracking_uri")


def main(settings: Settings) -> None:
    from actors.settings import recipe, save_recipe
    from avavla_ray.evaluation.study_chain import Chain
    from avavla_ray.evaluation.study_files import publish_study, write_study
    from avavla_ray.evaluation.study_report import Run
    from avavla_ray.hardware import describe_machine
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.provenance import git_commit
    from avavla_ray.storage.recorded import recorded
    from avavla_ray.tracking import check_store, default_uri, track
    from avavla_ray.training.output import check_output

    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    base, family = check(settings)
    identity = {name: recorded(value) for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    if settings.checkpoint is not None:
        identity["checkpoint_digest"] = load_checkpoint(settings.checkpoint).digest  # its path may hold another one
    check_output(settings.output, identity, settings.resume)
    check_longer(settings)
    key, ppo, own = settings.run_id or settings.output.name, recipe(settings.recipe), settings.output / "recipe.json"
    without, actions = apart(ppo)
    save_recipe(own, without, base=settings.recipe)
    tasks = ["--tasks", *settings.tasks] if settings.tasks else []
    chain = Chain(
        settings.output, key, uri, settings.suite,
        simulator=["--suite", settings.suite, *tasks, "--assets", settings.assets, "--render", settings.render],
        limit=[] if settings.max_steps is None else ["--max-steps", settings.max_steps],
    )  # fmt: skip
    checkpoint, demos = start(settings, chain)
    told = {"settings": identity | {"env_steps": settings.env_steps}, "commit": git_commit(),
            "machine": describe_machine()}  # fmt: skip
    first = chain.play("start", checkpoint, settings.depth, settings.episodes)
    runs: dict[str, list[Run]] = {name: [] for name in family}
    for seed in settings.seeds:
        for name, way in family.items():
            last, points = chain.train(f"{name}-{seed}", [
                "--checkpoint", checkpoint, "--recipe", own,
                *way.flags(ppo.update_decisions, demos, actions),
                "--env-steps", settings.env_steps, "--seed", seed,
                "--num-runners", settings.num_runners, "--min-runners", settings.num_runners,
                "--simulators", settings.simulators, "--fragment-decisions", settings.fragment_decisions,
            ])  # fmt: skip
            # With a larger budget the run goes on, and there is another policy to play.
            played = f"{name}-{seed}-{settings.env_steps}"
            runs[name].append(Run(seed, points, chain.play(played, last, settings.depth, settings.episodes)))
            title = f"{settings.suite}: ways of doing PPO"
            files = write_study(settings.output, title, settings.panels, base, runs, first, told)  # of what there is
    with track(
        f"study {settings.output.name}", kind="study", uri=uri, run_key=key, resume=settings.resume,
        params={"suite": settings.suite, "recipe": settings.recipe}, output=settings.output,
    ) as run:  # fmt: skip
        for file in files:
            run.log_file(file)
    if settings.publish is not None:
        print(f"published in {publish_study(settings.output, files, settings.publish)}", flush=True)
    print(f"\n{(settings.output / 'study.md').read_text(encoding='utf-8')}\nin {settings.output}")


def apart(ppo: PPOSettings) -> tuple[PPOSettings, list[Any]]:
    """Settings without what goes with learning from actions, and the flags that bring it back for the variants that do:
    no flag could undo what a recipe says."""
    words: list[Any] = ["--learn-action-std"] if ppo.learn_action_std else []
    if ppo.imitation_weight:
        words += ["--imitation-weight", ppo.imitation_weight]
    return replace(ppo, train_actions=False, learn_action_std=False, imitation_weight=0.0), words


def check(settings: Settings) -> tuple[Way, dict[str, Way]]:
    """The base and all variants; refuses what can't work, before anything slow starts."""
    from actors.cloning_stream import check_units
    from actors.learner_group import check_trainable
    from actors.settings import recipe
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.evaluation.ppo_study import Way, chosen
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.experts.cautious import check_speed
    from avavla_ray.simulators.registry import CHAINS, identify, suite_spec
    from avavla_ray.training.output import check_unused
    from avavla_ray.training.settings import recipe as cloning_recipe

    if settings.suite.endswith(CHAINS):
        raise InputError(f"--suite {settings.suite}: a study plays single tasks; take one of them")
    suite_spec(settings.suite).states_a_task(settings.episodes)
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise InputError(f"--seeds {' '.join(map(str, settings.seeds))}: give one or several, each once")
    for name in ("env_steps", "bc_steps", "demonstrations", "num_runners", "simulators", "fragment_decisions"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: give at least 1")
    ppo, policy = recipe(settings.recipe), preset(settings.preset)
    cloning_recipe(settings.bc_recipe)
    check_speed(settings.speed)
    metadata = None if settings.demos is None else read_metadata(settings.demos)
    if settings.checkpoint is not None:
        given = load_checkpoint(settings.checkpoint)
        policy = given.policy.config
        check_trainable(policy, settings.checkpoint, ppo)
        if metadata is not None:
            check_units(str(metadata.folder), metadata.statistics, given.statistics_of(None))
    exit_settings((), (settings.depth,), policy)
    base = Way(
        max_lag=ppo.max_lag, correction=ppo.correction, train_actions=settings.train_actions or ppo.train_actions,
        demos=settings.checkpoint is None or settings.demos is not None,
    )  # fmt: skip
    family = chosen(settings.panels, base)
    identify(
        SimulatorConfig(
            suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
            max_steps=settings.max_steps,
        )
    )  # fmt: skip
    check_unused(settings.output, settings.resume)
    return base, family


def check_longer(settings: Settings) -> None:
    """Note how long the folder's runs are to be, and refuse less than was noted: they may be that long already, and
    would be shown beside evaluations of policies that they no longer are."""
    from avavla_ray.errors import InputError
    from avavla_ray.files import write_json

    known = settings.output / LENGTH
    before = json.loads(known.read_text(encoding="utf-8"))["env_steps"] if known.is_file() else 0
    if settings.env_steps < before:
        raise InputError(
            f"--env-steps {settings.env_steps}: the runs in {settings.output} are of {before}; give at least so many, "
            "or another --output"
        )
    write_json(known, {"env_steps": settings.env_steps})


def start(settings: Settings, chain: Chain) -> tuple[Path, str | None]:
    """The policy that all begin with, cloned where none was given, and the demonstrations."""
    from avavla_ray.policy.config import preset

    if settings.checkpoint is not None:
        return settings.checkpoint, settings.demos
    demos, seed = settings.demos, ["--seed", settings.seed]
    if demos is None:
        size = ["--image-size", preset(settings.preset).backbone.camera_size]
        expert = ["--episodes", settings.demonstrations, "--noise", settings.noise, "--speed", settings.speed]
        demos = chain.collect([*expert, *size, *seed])
    words = ["--demos", demos, "--preset", settings.preset, *seed]
    return chain.clone(settings.bc_recipe, settings.bc_steps, words), demos


if __name__ == "__main__":
    run_job(main, Settings)
