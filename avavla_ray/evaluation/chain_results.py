"""What chains of tasks leave behind, and what CALVIN publishes of them: i tasks in a row, and average length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.ledger import RecordLedger
from avavla_ray.evaluation.tables import cell

LENGTH = 5


@dataclass
class ChainRecord:
    """What one chain leaves in the ledger.

    Attributes:
        sequence: its number among the published ones. tasks: its five tasks. completed: tasks done in a row.
        steps: environment steps of each task that was begun. latent_steps: of each decision, empty for experts.
        attempts: how often it was begun; all but the last ended with the simulator.
        error: why the simulator gave the chain up, else None.
        setting: label of the exit setting, where several are evaluated. scores: see `EpisodeRecord`.
        quarantined: it killed one simulator after the other.
    """

    sequence: int
    tasks: list[str]
    completed: int = 0
    steps: list[int] = field(default_factory=list)
    latent_steps: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    attempts: int = 1
    error: str | None = None
    setting: str = ""
    scores: list[list[float]] = field(default_factory=list)
    quarantined: bool = False


class ChainLedger(RecordLedger[ChainRecord]):
    """Finished chains. Aborted ones are forgotten: who resumes plays them again."""

    kind, unit = ChainRecord, "chains"

    def key(self, record: ChainRecord) -> tuple[str, int]:
        """Setting, and the sequence's number."""
        return record.setting, record.sequence

    def keeps(self, record: ChainRecord) -> bool:
        """See `RecordLedger.keeps`."""
        return record.error is None


def mean_interval(values: list[int], lowest: float, highest: float) -> tuple[float, float]:
    """95 % interval of the mean of values between `lowest` and `highest`; none: all of that.

    The normal approximation with two values at either end added (Agresti and Coull 1998 do so for shares), so that a
    few chains that all ended alike do not look certain.
    """
    if not values:
        return lowest, highest
    padded = [*values, lowest, lowest, highest, highest]
    mean = sum(padded) / len(padded)
    half = 1.96 * math.sqrt(sum((value - mean) ** 2 for value in padded) / len(padded) / len(padded))
    own = sum(values) / len(values)
    return max(lowest, min(own, mean - half)), min(highest, max(own, mean + half))


def summarise_chains(records: Iterable[ChainRecord], **identity: Any) -> dict[str, Any]:
    """The result of an evaluation, as its file holds it.

    A chain that the simulator gave up is neither long nor short: no rate, mean or count knows of it or of the tasks in
    it. It is named in `aborted`.

    Args:
        identity: scene, actor, provenance, ...: stored first.
    """
    everything = sorted(records, key=lambda record: record.sequence)
    records = [record for record in everything if record.error is None]
    lengths = [record.completed for record in records]
    in_a_row = []
    for row in range(1, LENGTH + 1):
        count = sum(length >= row for length in lengths)
        in_a_row.append(
            {
                "tasks": row, "successes": count, "chains": len(records),
                "success_rate": count / len(records) if records else None, "ci95": list(wilson(count, len(records))),
            }
        )  # fmt: skip
    tasks: dict[str, dict[str, int]] = {}
    for record in records:
        for place, task in enumerate(record.tasks[: len(record.steps)]):
            counts = tasks.setdefault(task, {"episodes": 0, "successes": 0})
            counts["episodes"] += 1
            counts["successes"] += place < record.completed
    latent_steps = [steps for record in records for steps in record.latent_steps]
    milliseconds = [value for record in records for value in record.milliseconds]
    quantiles = {f"ms_p{share}": share / 100 for share in (50, 90, 99)}
    return {
        **identity,
        "chains": len(records),
        "average_length": sum(lengths) / len(lengths) if lengths else None,
        "average_length_ci95": list(mean_interval(lengths, 0.0, float(LENGTH))),
        "in_a_row": in_a_row,
        "tasks": dict(sorted(tasks.items())),
        "mean_latent_steps": sum(latent_steps) / len(latent_steps) if latent_steps else None,
        "exit_histogram": {str(steps): count for steps, count in sorted(Counter(latent_steps).items())},
        "ms_mean": sum(milliseconds) / len(milliseconds) if milliseconds else None,
        **{
            name: float(np.quantile(milliseconds, share)) if milliseconds else None for name, share in quantiles.items()
        },
        "decisions": len(latent_steps),
        "retried_chains": sum(record.attempts > 1 for record in records),
        "aborted_chains": len(everything) - len(records),
        "aborted": [
            {"sequence": record.sequence, "attempts": record.attempts, "error": record.error}
            for record in everything
            if record.error is not None
        ],
    }


def chain_table(result: dict[str, Any]) -> str:
    """The published row as a Markdown table, and below it the chains that are not in it."""

    rows = [
        f"| {row['tasks']}/{LENGTH} | {cell(row['success_rate'], '.1%')} "
        f"| {row['ci95'][0]:.1%} - {row['ci95'][1]:.1%} |"
        for row in result["in_a_row"]
    ]
    low, high = result["average_length_ci95"]
    rows.append(f"| average length | {cell(result['average_length'], '.2f')} | {low:.2f} - {high:.2f} |")
    table = ["| tasks in a row | success | 95 % interval |", "|---|---|---|", *rows]
    if result["aborted"]:
        table += ["", f"{result['aborted_chains']} aborted chain(s), in none of these numbers:", ""]
        table += [
            f"- sequence {one['sequence']}, begun {one['attempts']} times: {one['error']}" for one in result["aborted"]
        ]
    return "\n".join(table) + "\n"
