"""From episode records to the numbers that are published, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord, ExitSetting
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.files import append_line, write_text


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


class Ledger:
    """Finished episodes of one evaluation, one JSON line each, so that a stopped evaluation goes on where it was.

    The first line names what is evaluated. A ledger of something else is refused, and so is one with episodes in it
    where nobody asked to resume: they would be lost. Aborted episodes are forgotten: who resumes plays them again.
    """

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.records: dict[tuple[str, int, int], EpisodeRecord] = {}
        head = json.dumps({"evaluates": identity}, sort_keys=True)
        if path.exists() and not resume and path.read_text(encoding="utf-8").count("\n") > 1:
            raise InputError(f"{path} holds finished episodes: add --resume to keep them, or give another --output")
        if path.exists() and resume:
            first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
            if first != head:
                raise InputError(
                    f"{path} belongs to another evaluation: choose another --output, or leave out --resume"
                )
            for line in lines:
                try:
                    record = EpisodeRecord(**json.loads(line))
                except json.JSONDecodeError:
                    continue  # the line that a killed process was writing: its episode is played again
                if record.error is None:
                    self.records[record.setting, record.task, record.initial_state] = record
        kept = [json.dumps(record.to_json()) for record in self.records.values()]
        write_text(path, "\n".join([head, *kept]) + "\n")

    def add(self, record: EpisodeRecord) -> None:
        self.records[record.setting, record.task, record.initial_state] = record
        append_line(self.path, json.dumps(record.to_json()))

    def __contains__(self, key: tuple[str, int, int]) -> bool:
        return key in self.records


def _without(result: dict[str, Any]) -> str:
    """What a result does without. Runs of older versions don't name quarantined tasks."""
    quarantined = ", ".join(result.get("quarantined_tasks", ()))
    return f"{result['aborted_episodes']} aborted" + (f", task(s) {quarantined} quarantined" if quarantined else "")


def markdown_table(results: list[dict[str, Any]], labels: list[str] | None = None) -> str:
    """The comparison as a Markdown table, a row a result; `labels` names the checkpoints in a first column."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

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
                number(result["success_rate"], ".1%"),
                f"{result['ci95'][0]:.1%} - {result['ci95'][1]:.1%}",
                number(result["mean_latent_steps"], ".2f"),
                number(result["ms_mean"], ".1f"),
                number(result["ms_p90"], ".1f"),
                f"{result['successes']}/{result['episodes']}"
                + (f" ({_without(result)})" if result["aborted_episodes"] else ""),
            ]
        )
    if labels is not None:
        head = ["checkpoint", *head]
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in [head, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"
