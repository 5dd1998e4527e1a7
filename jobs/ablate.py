#!/usr/bin/env python
"""Does thinking pay? The same policy with parts left out, and at fixed depths: one table, one picture.

Clones every variant from the same demonstrations for as many steps, trains it with PPO for as many updates, calibrates
the full policy's exit gate, and plays all of them from the same initial states. Runs the other jobs one after another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from avavla_ray.evaluation.ablation import Variant


@dataclass(frozen=True)
class Settings:
    """Settings of the ablation."""

    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices; all when left out."""
    demos: str | None = None
    """Demonstrations to clone; collected from the scripted expert when left out."""
    demonstrations: int = 30
    """Episodes a task of those."""
    preset: str = "small"
    bc_steps: int = 1000
    """Cloning of each variant."""
    ppo_updates: int = 40
    """PPO of each variant that has a latent loop; 0 for none, and no calibration."""
    ppo_recipe: str = "demo"
    episodes: int = 50
    """Evaluation episodes a task and setting."""
    max_depth: int = 10
    """K of all variants, the most latent steps."""
    depth: int = 5
    """Fixed depth at which the variants are compared."""
    depths: tuple[int, ...] = (0, 1, 3, 5, 10)
    """Fixed depths of the full policy."""
    delta: float = 0.05
    """Gain of value that thinking on is worth it for, in the calibration of the gate."""
    threshold: float = 0.55
    """Exit threshold of the adaptive row."""
    max_steps: int | None = None
    assets: str = "bundled"
    render: str = "fast"
    num_runners: int = default_workers()
    seed: int = 0
    output: Path = Path("runs/ablate")
    run_id: str | None = None
    """Identity of this ablation, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Go on in the output folder: what is finished is not done again."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


DAY = 24 * 60  # minutes; the recipe would end cloning before its steps on a slow machine, and variants would differ

# From one --resume to the next: what is played of the trained policies, and how.
MAY_CHANGE = ("episodes", "depth", "depths", "threshold", "num_runners", "output", "run_id", "resume", "tracking_uri")


def main(settings: Settings) -> None:
    from avavla_ray.evaluation.ablation import ablation_table, play_list, plot_ablation, read_rows, variants
    from avavla_ray.files import write_text
    from avavla_ray.policy.config import preset
    from avavla_ray.storage.recorded import recorded
    from avavla_ray.tracking import check_store, default_uri, track
    from avavla_ray.training.output import check_output

    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    check(settings)
    trained = {name: recorded(value) for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    check_output(settings.output, trained, settings.resume)
    key = settings.run_id or settings.output.name
    family = variants(with_ppo=settings.ppo_updates > 0)
    demos = settings.demos or str(settings.output / "demos")
    if settings.demos is None:
        size = preset(settings.preset).backbone.camera_size
        stage(settings, "demonstrations", "collect_demos", Path(demos), [
            *simulator(settings), "--episodes", settings.demonstrations, "--seed", settings.seed, "--image-size", size,
        ])  # fmt: skip
    for variant in family:
        train(settings, variant, demos, uri)
    plays = play_list(family, settings.depth, settings.depths, settings.threshold)
    for play in plays:
        folder = settings.output / "evaluate" / play.variant.key
        stage(settings, f"evaluation: {play.variant.name}", "evaluate", folder, [
            *simulator(settings), *limit(settings), "--checkpoint", settings.output / play.variant.checkpoint,
            "--label", play.variant.name, "--no-videos",
            "--thresholds", *play.thresholds, "--depths", *play.depths, "--episodes", settings.episodes,
            "--run-id", f"{key}/{play.variant.key}", "--tracking-uri", uri,
        ], again=True)  # fmt: skip
    found = read_rows(settings.output / "evaluate", plays, settings.depth)
    table, picture = ablation_table(found), settings.output / "ablation.png"
    write_text(settings.output / "ablation.md", table)
    plot_ablation(picture, found, f"{settings.suite}: does thinking pay?")
    with track(
        f"ablation {settings.output.name}", kind="ablation", uri=uri, run_key=key,
        resume=settings.resume, params={"suite": settings.suite, "preset": settings.preset}, output=settings.output,
    ) as run:  # fmt: skip
        run.log_file(settings.output / "ablation.md")
        run.log_file(picture)
    print(f"\n{table}\npicture: {picture}")


def check(settings: Settings) -> None:
    """Refuse what can't work, before anything slow starts."""
    from actors.settings import recipe
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.exit_setting import exit_settings
    from avavla_ray.policy.config import preset
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import CHAINS, identify, suite_spec
    from avavla_ray.training.output import check_unused

    if settings.suite.endswith(CHAINS):
        raise InputError(f"--suite {settings.suite}: an ablation plays single tasks; take one of them")
    suite_spec(settings.suite).states_a_task(settings.episodes)
    if settings.bc_steps < 1 or settings.ppo_updates < 0:
        raise InputError("--bc-steps needs to be more than 0, and --ppo-updates at least 0")
    recipe(settings.ppo_recipe)
    if settings.demos is not None:
        read_metadata(settings.demos)
    deepest = max((settings.depth, *settings.depths))
    if settings.max_depth < deepest:
        raise InputError(f"--max-depth {settings.max_depth}: the deepest of --depth and --depths is {deepest}")
    exit_settings((settings.threshold,), (), preset(settings.preset))
    identify(
        SimulatorConfig(
            suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
            max_steps=settings.max_steps,
        )
    )  # fmt: skip
    check_unused(settings.output, settings.resume)


def train(settings: Settings, variant: Variant, demos: str, uri: str) -> None:
    """Clone it, and where it is due train it with PPO and calibrate its gate."""
    tracked = ["--seed", settings.seed, "--tracking-uri", uri]
    folder = settings.output / variant.key
    if variant.trained == "bc":
        without = ["--without", *variant.without] if variant.without else []
        stages = ["--stages", "cloning"] if "latent" in variant.without else []
        stage(settings, f"cloning: {variant.name}", "bc_libero", folder, [
            "--demos", demos, "--preset", settings.preset, "--recipe", "demo", "--steps", settings.bc_steps,
            "--minutes", DAY,
            "--latent-steps", settings.max_depth, *without, *stages, *tracked,
        ])  # fmt: skip
    elif variant.trained == "ppo":
        stage(settings, f"PPO: {variant.name}", "ppo_libero", folder, [
            *simulator(settings), *limit(settings), "--checkpoint", settings.output / variant.start, "--demos", demos,
            "--recipe", settings.ppo_recipe, "--updates", settings.ppo_updates, *tracked,
        ])  # fmt: skip
    else:
        stage(settings, f"exit calibration: {variant.name}", "calibrate_exit", folder, [
            *simulator(settings), *limit(settings), "--checkpoint", settings.output / variant.start,
            "--delta", settings.delta, *tracked,
        ])  # fmt: skip


def simulator(settings: Settings) -> list[Any]:
    """The flags that all jobs with simulators share."""
    tasks = ["--tasks", *settings.tasks] if settings.tasks else []
    return ["--suite", settings.suite, *tasks, "--assets", settings.assets, "--render", settings.render,
            "--num-runners", settings.num_runners]  # fmt: skip


def limit(settings: Settings) -> list[Any]:
    """Of an episode's steps, for jobs whose policy acts."""
    return [] if settings.max_steps is None else ["--max-steps", settings.max_steps]


def stage(settings: Settings, title: str, job: str, output: Path, words: list[Any], again: bool = False) -> None:
    """Run a job into its folder, from where it was stopped; what has been finished is left as it is.

    Args:
        again: the job knows itself what it has finished.
    """
    from avavla_ray.job_chain import run_stage
    from avavla_ray.run_identity import holds_run

    done = output / "ablation_done"
    if done.exists() and not again:
        return
    resume = ["--resume"] if settings.resume and holds_run(output) else []
    run_stage(title, job, [*words, "--output", output, *resume])
    done.touch()


if __name__ == "__main__":
    run_job(main, Settings)
