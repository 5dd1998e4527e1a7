#!/usr/bin/env python
"""One of the project's proofs, from demonstrations to a table with intervals: `prove.py NAME`; `--list` names them.

Runs the other jobs one after another in runs/proofs/NAME-SEED. Whatever ended it, the same command goes on: a finished
step is not done again, and a half-done one is resumed. Leaves OUTPUT/result; --publish results copies it there and
brings the tables of results/README.md up to date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from avavla_ray.evaluation.proofs.catalogue import Options
    from avavla_ray.evaluation.proofs.step import Proof


@dataclass(frozen=True)
class Settings:
    """Settings of a proof."""

    name: tyro.conf.Positional[str] = ""
    """Which proof; all are listed when left out."""
    list: bool = False
    """List the proofs with what they show and their targets, and run nothing."""
    seed: int = 0
    """Of demonstrations, training and rollouts."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    """Of demonstrations, rollouts and evaluations alike. Scores to be held against published ones want reference."""
    num_runners: int = default_workers()
    """Simulator actors of all jobs that have any. May change from one start to the next."""
    checkpoint: Path | None = None
    """Policy that early_exit starts from; that of the finished bc_object of this seed when left out."""
    output: Path | None = None
    """Folder of the proof; runs/proofs/NAME-SEED when left out."""
    publish: Path | None = None
    """Copy what is to be published there when the proof has ended, for instance results."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


DYING_S = 30.0  # a process that was told to end lets go of the folder in that time


def main(settings: Settings) -> None:
    from avavla_ray.evaluation.proofs.catalogue import default_folder, proof
    from avavla_ray.tracking import check_store, default_uri

    if settings.list or not settings.name:
        print(listing())
        return
    uri = settings.tracking_uri or default_uri()
    check_store(uri)
    options = options_of(settings)
    chosen = proof(settings.name, options)
    check(chosen, settings)
    prove(chosen, settings, settings.output or default_folder(chosen.name, settings.seed), uri, options.digest)


def listing() -> str:
    """Names, sentences and targets."""
    from avavla_ray.evaluation.proofs.catalogue import PROOFS, Options

    found = [make(Options()) for make in PROOFS.values()]
    return "\n\n".join(
        f"{each.name}\n  {each.sentence}\n" + "\n".join(f"  - {target.text}" for target in each.targets)
        for each in found
    )


def options_of(settings: Settings) -> Options:
    """What the proof is made with; of early_exit's checkpoint also what it is.

    Raises:
        InputError: there is no such checkpoint, it learned from other assets or another renderer, or the proof takes
            none.
    """
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.proofs.catalogue import Options, default_folder
    from avavla_ray.policy.folder import open_folder

    options = Options(settings.seed, settings.assets, settings.render, settings.checkpoint)
    if settings.name != "early_exit":
        if settings.checkpoint is not None:
            raise InputError(f"--checkpoint is early_exit's; {settings.name} trains its own: leave it out")
        return options
    start = settings.checkpoint or default_folder("bc_object", settings.seed) / "bc/checkpoint"
    if settings.checkpoint is None and not start.is_dir():
        raise InputError(f"{start} is not there: run jobs/prove.py bc_object --seed {settings.seed}, or --checkpoint")
    found = open_folder(start, verify=False)
    for learned in found.provenance.get("demonstrations", ()):
        for name in ("assets", "render"):
            before, asked = learned.get("simulator", {}).get(name), getattr(settings, name)
            if before not in (None, asked, "path"):  # a folder of one's own is noted as such only
                raise InputError(f"{start} learned with --{name} {before}: give that, or another --checkpoint")
    return replace(options, stage=found.stage, digest=found.digest)


def check(chosen: Proof, settings: Settings) -> None:
    """Refuse what would fail in the middle: suites, assets, recipes, and the place to publish.

    Raises:
        InputError: names it.
    """
    from actors.settings import recipe as ppo_recipe
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.proofs.publish import check_place
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify
    from avavla_ray.training.settings import recipe as cloning_recipe

    if settings.num_runners < 1:
        raise InputError(f"--num-runners {settings.num_runners}: give at least 1")
    for step in chosen.steps:
        given = dict(zip(step.words, step.words[1:], strict=False))
        if "--suite" in given:
            suite = str(given["--suite"])
            identify(SimulatorConfig(suite=suite, assets=settings.assets, render=settings.render))
        if "--recipe" in given:
            (ppo_recipe if step.job.startswith("ppo") else cloning_recipe)(str(given["--recipe"]))
    if settings.publish is not None:
        check_place(settings.publish)


def prove(chosen: Proof, settings: Settings, folder: Path, uri: str, digest: str = "") -> None:
    """Run what is left of a proof, gather its result and publish it.

    Args:
        digest: of the checkpoint that it starts from, which may be made anew in its place.

    Raises:
        InputError: the folder holds another proof, or something does not fit. SystemExit: a job failed.
    """
    from avavla_ray.evaluation.proofs.chain import WITHOUT_SIMULATORS, run_chain
    from avavla_ray.evaluation.proofs.cloning_curve import keep_cloning_curve
    from avavla_ray.evaluation.proofs.publish import publish
    from avavla_ray.evaluation.proofs.result import TABLE, write_result
    from avavla_ray.storage.recorded import recorded
    from avavla_ray.training.output import SETTINGS, check_output
    from avavla_ray.training.run_lock import RunLock

    asked = {"seed": settings.seed, "assets": settings.assets, "render": settings.render}
    start = recorded(settings.checkpoint)
    with RunLock(folder, DYING_S):
        identity = {"proof": chosen.name, **asked, "checkpoint": start, **({"digest": digest} if digest else {})}
        check_output(folder, json.loads(json.dumps(identity)), resume=(folder / SETTINGS).is_file())
        notes = run_chain(chosen, folder, num_runners=settings.num_runners, uri=uri)
        for step in chosen.steps:
            if step.job in WITHOUT_SIMULATORS:
                keep_cloning_curve(folder / step.key, uri)
        command = " ".join(
            [f"python jobs/prove.py {chosen.name}", *(f"--{name} {value}" for name, value in asked.items()),
             *([] if start is None else [f"--checkpoint {start}"])]
        )  # fmt: skip
        result = write_result(chosen, notes, command=command, asked=asked)
        print(f"\n{(result / TABLE).read_text(encoding='utf-8')}\nresult in {result}", flush=True)
        if settings.publish is not None:
            print(f"published in {publish(result, settings.publish)}", flush=True)


if __name__ == "__main__":
    run_job(main, Settings)
