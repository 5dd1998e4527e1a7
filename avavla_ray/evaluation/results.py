"""From episode records to the numbers that are published, and their files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.ledger import RecordLedger
from avavla_ray.evaluation.tables import aligned, cell


def summarise(
    setting: ExitSetting, records: Iterable[EpisodeRecord], instructions: dict[int, str], **identity: Any
) -> dict[str, Any]:
    """The result of one exit setting, as its file holds it.

    An episode that its simulator gave up is neither a failure nor a success: no rate, mean or count of episodes knows
    of it. It is named in `aborted`, and its task in `quarantined_tasks` if that killed one simulator after the other.

    Args:
        identity: suite, checkpoint, provenance, ...: stored first.
    """
    records = [record for record in records if record.setting == setting.label]
    whole = [record for record in records if record.error is None]
    aborted = [record for record in records if record.error is not None]
    successes = sum(record.success for record in whole)
    latent_steps = np.concatenate([record.latent_steps for record in whole]) if whole else np.zeros(0)
    milliseconds = np.concatenate([record.milliseconds for record in whole]) if whole else np.zeros(0)
    tasks = []
    for task in sorted({record.task for record in records}):
        mine = [record for record in whole if record.task == task]
        tasks.append(
            {
                "task": task, "instruction": instructions[task], "episodes": len(mine),
                "successes": sum(record.success for record in mine),
                "aborted": sum(record.task == task for record in aborted),
            }
        )  # fmt: skip
    steps, counts = np.unique(latent_steps.astype(int), return_counts=True)
    return {
        **identity,
        "exit_threshold": setting.exit_threshold,
        "fixed_depth": setting.fixed_depth,
        "tasks": tasks,
        "episodes": len(whole),
        "successes": successes,
        "success_rate": successes / len(whole) if whole else None,
        "ci95": list(wilson(successes, len(whole))),
        "mean_latent_steps": float(latent_steps.mean()) if latent_steps.size else None,
        "exit_histogram": {str(k): int(n) for k, n in zip(steps, counts, strict=True)},
        "ms_mean": float(milliseconds.mean()) if milliseconds.size else None,
        "ms_p50": float(np.quantile(milliseconds, 0.5)) if milliseconds.size else None,
        "ms_p90": float(np.quantile(milliseconds, 0.9)) if milliseconds.size else None,
        "decisions": int(latent_steps.size),
        "mean_episode_steps": float(np.mean([record.steps for record in whole])) if whole else None,
        "aborted_episodes": len(aborted),
        "aborted": [{"task": r.task, "initial_state": r.initial_state, "error": r.error} for r in aborted],
        "quarantined_tasks": {str(record.task): record.error for record in aborted if record.quarantined},
    }


class Ledger(RecordLedger[EpisodeRecord]):
    """Finished episodes. Aborted ones are forgotten: who resumes plays them again."""

    kind, unit = EpisodeRecord, "episodes"

    def key(self, record: EpisodeRecord) -> tuple[str, int, int]:
        """Setting, task and initial state."""
        return record.setting, record.task, record.initial_state

    def keeps(self, record: EpisodeRecord) -> bool:
        """See `RecordLedger.keeps`."""
        return record.error is None


def _without(result: dict[str, Any]) -> str:
    """What a result does without. Runs of older versions don't name quarantined tasks."""
    quarantined = ", ".join(result.get("quarantined_tasks", ()))
    return f"{result['aborted_episodes']} aborted" + (f", task(s) {quarantined} quarantined" if quarantined else "")


def markdown_table(results: list[dict[str, Any]], labels: list[str] | None = None) -> str:
    """The comparison as a Markdown table, a row a result; `labels` names the checkpoints in a first column."""

    head = [
        "exit threshold",
        "success",
        "95 % interval",
        "mean latent steps",
        "ms mean",
        "ms P90",
        "episodes",
    ]
    rows = []
    for result in results:
        threshold, depth = result["exit_threshold"], result["fixed_depth"]
        rows.append(
            [
                f"fixed depth {depth}" if threshold is None else f"{threshold:.2f}",
                cell(result["success_rate"], ".1%"),
                f"{result['ci95'][0]:.1%} - {result['ci95'][1]:.1%}",
                cell(result["mean_latent_steps"], ".2f"),
                cell(result["ms_mean"], ".1f"),
                cell(result["ms_p90"], ".1f"),
                f"{result['successes']}/{result['episodes']}"
                + (f" ({_without(result)})" if result["aborted_episodes"] else ""),
            ]
        )
    if labels is not None:
        head = ["checkpoint", *head]
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    return aligned(head, rows)
