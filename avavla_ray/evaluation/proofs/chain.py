"""Runs the steps of a proof, each as a user would type it; what is finished is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avavla_ray.evaluation.proofs.notes import Notes
from avavla_ray.evaluation.proofs.step import Proof, Step
from avavla_ray.evaluation.proofs.whole import check_whole, gave_up
from avavla_ray.hardware import describe_machine
from avavla_ray.job_chain import run_stage
from avavla_ray.provenance import git_commit

WITHOUT_SIMULATORS = ("bc_libero", "bc_calvin")
ALWAYS_GOES_ON = ("collect_demos",)  # has no run and no --run-id: repeated, it adds what is missing


def run_chain(proof: Proof, folder: Path, *, num_runners: int, uri: str) -> Notes:
    """Do what is left of a proof.

    Args:
        folder: of the proof. uri: MLflow store.

    Returns:
        the notes of all its steps.

    Raises:
        InputError: a step does not fit what is in its folder, or simulators gave up a part of it.
        SystemExit: a job failed, or this process was told to end.
    """
    notes = Notes(folder)
    machine = describe_machine()
    for number, step in enumerate(proof.steps, 1):
        title = f"{proof.name} {number}/{len(proof.steps)}, {step.title}"
        notes.check_fresh(step)
        if notes.finished(step):
            print(f"=== {title}: finished already, in {folder / step.key}", flush=True)
            continue
        with notes.running(step, git_commit(), machine):
            run_stage(title, step.job, command(step, folder, num_runners=num_runners, uri=uri))
            check_whole(step, folder)
    return notes


def command(step: Step, folder: Path, *, num_runners: int, uri: str) -> list[Any]:
    """The words of a step's command line."""
    words: list[Any] = [*step.spelled(folder), "--output", folder / step.key]
    if step.job not in WITHOUT_SIMULATORS:
        words += ["--num-runners", num_runners]
    if step.job not in ALWAYS_GOES_ON:
        # The same command again goes on with what this one has begun, or says that it is finished.
        words += ["--run-id", f"{folder.name}/{step.key}", "--tracking-uri", uri]
    if step.job == "evaluate" and gave_up(folder / step.key):
        words.append("--resume")  # else it would say that it is finished
    return words
