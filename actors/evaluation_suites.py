"""Which evaluation a suite gets, and where its results go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from actors.evaluation_chains import ChainEvaluation
from actors.evaluation_run import EpisodeEvaluation, EvaluationPlan
from avavla_ray.errors import InputError
from avavla_ray.simulators.registry import CALVIN_CHAIN_SUITES
from avavla_ray.training.run_lock import RunLock

DYING_S = 10.0  # a process that was killed lets go of its folder in that time


@contextmanager
def evaluations(
    plan: EvaluationPlan, suites: Sequence[str], output: Path
) -> Iterator[list[EpisodeEvaluation | ChainEvaluation]]:
    """One a suite. Of several, each has a folder of its name in `output`; inside the block no other process writes
    there, or the two would play the same and lose what the other adds to the ledger.

    Raises:
        InputError: any of them can't be evaluated so, or another process has the folder; nothing has been started then.
    """
    if len(set(suites)) < len(suites):
        raise InputError(f"--suite {' '.join(suites)}: give each once")
    if plan.tasks and len(suites) > 1:
        raise InputError("--tasks are of one suite: give one, or leave them out")
    made: list[EpisodeEvaluation | ChainEvaluation] = []
    for suite in suites:
        place, key = (output, plan.run_id) if len(suites) == 1 else (output / suite, f"{plan.run_id}/{suite}")
        kind = ChainEvaluation if suite in CALVIN_CHAIN_SUITES else EpisodeEvaluation
        made.append(kind(plan, suite, place, key))
    with ExitStack() as locks:
        for evaluation in made:
            locks.enter_context(RunLock(evaluation.output, DYING_S))
            evaluation.open()
        yield made
