"""From episode records to the numbers that are published, and their files."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, Threshold
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.ledger import RecordLedger
from avavla_ray.evaluation.tables import aligned, cell

TENTHS = 10


def summarise(
    setting: ExitSetting, records: Iterable[EpisodeRecord], instructions: dict[int, str], **identity: Any
) -> dict[str, Any]:
    """The result of one exit setting, as its file holds it.

    An episode that its simulator gave up is neither a failure nor a success: no rate, mean or count of episodes knows
    of it. It is named in `aborted`, and its task in `quarantined_tasks` if that killed one simulator after the other.
    Means of latent steps and milliseconds are over all decisions.

    Args:
        identity: suite, checkpoint, provenance, ...: stored first.
    """
    records = [record for record in records if record.setting == setting.label]
    whole = [record for record in records if record.error is None]
    aborted = [record for record in records if record.error is not None]
    numbers = _numbers(whole)
    tasks = []
    for task in sorted({record.task for record in records}):
        played = sorted((r for r in whole if r.task == task), key=lambda record: record.initial_state)
        mine = _numbers(played)
        kept = ("episodes", "successes", "ci95", "mean_latent_steps", "ms_mean", "exit_histogram")
        tasks.append(
            {
                "task": task, "instruction": instructions[task], **{name: mine[name] for name in kept},
                "aborted": sum(record.task == task for record in aborted),
                "succeeded_from": [record.initial_state for record in played if record.success],
                "failed_from": [record.initial_state for record in played if not record.success],
            }
        )  # fmt: skip
    return {
        **identity,
        "setting": setting.label,
        "title": setting.title,
        "exit_threshold": _plain(setting.exit_threshold),
        "fixed_depth": setting.fixed_depth,
        "families": {name: _plain(threshold) for name, threshold in setting.families},
        "tasks": tasks,
        **numbers,
        "steps_by_phase": steps_by_phase(whole),
        "mean_episode_steps": float(np.mean([record.steps for record in whole])) if whole else None,
        "aborted_episodes": len(aborted),
        "aborted": [{"task": r.task, "initial_state": r.initial_state, "error": r.error} for r in aborted],
        "quarantined_tasks": {str(record.task): record.error for record in aborted if record.quarantined},
    }


def _numbers(whole: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Of some finished episodes."""
    successes = sum(record.success for record in whole)
    latent_steps = np.concatenate([record.latent_steps for record in whole]) if whole else np.zeros(0)
    milliseconds = np.concatenate([record.milliseconds for record in whole]) if whole else np.zeros(0)
    steps, counts = np.unique(latent_steps.astype(int), return_counts=True)
    quantiles = {f"ms_p{share}": share / 100 for share in (50, 90, 99)}
    return {
        "episodes": len(whole),
        "successes": successes,
        "success_rate": successes / len(whole) if whole else None,
        "ci95": list(wilson(successes, len(whole))),
        "mean_latent_steps": float(latent_steps.mean()) if latent_steps.size else None,
        "exit_histogram": {str(k): int(n) for k, n in zip(steps, counts, strict=True)},
        "ms_mean": float(milliseconds.mean()) if milliseconds.size else None,
        **{
            name: float(np.quantile(milliseconds, share)) if milliseconds.size else None
            for name, share in quantiles.items()
        },
        "decisions": int(latent_steps.size),
    }


def steps_by_phase(records: Sequence[EpisodeRecord]) -> list[float | None]:
    """Mean latent steps of the decisions in each tenth of their episodes; None for a tenth in which nobody decided.

    Decision i of D, counted from 0, lies in tenth floor(10 i / D), so that an episode of fewer than ten decisions is
    absent from some tenths.
    """
    phases: list[list[int]] = [[] for _ in range(TENTHS)]
    for record in records:
        for index, steps in enumerate(record.latent_steps):
            phases[TENTHS * index // len(record.latent_steps)].append(steps)
    return [float(np.mean(steps)) if steps else None for steps in phases]


def setting_of(result: dict[str, Any]) -> ExitSetting:
    """The exit setting of a result, also of one that older versions wrote or that was read from JSON."""
    families = tuple((name, _frozen(threshold)) for name, threshold in result.get("families", {}).items())
    limit = result["exit_threshold"]
    return ExitSetting(None if limit is None else _frozen(limit), result["fixed_depth"], families)


def outcomes_of(result: dict[str, Any]) -> dict[Hashable, bool]:
    """Whether it succeeded, by (suite, task, initial state): what two results are paired by.

    Raises:
        InputError: the result is of a version that did not keep this.
    """
    if any("succeeded_from" not in task for task in result["tasks"]):
        raise InputError(
            f"the result of {result['suite']} at {setting_of(result).title} is of an older version, which did not keep "
            f"where each episode began: repeat jobs/evaluate.py with --resume"
        )
    return {
        (result["suite"], task["task"], state): success
        for task in result["tasks"]
        for name, success in (("succeeded_from", True), ("failed_from", False))
        for state in task[name]
    }


def order(result: dict[str, Any]) -> tuple[bool, tuple[float, ...], int, str]:
    """Sorts results: rising thresholds, then rising depths."""
    setting = setting_of(result)
    limits = setting.exit_threshold
    each = () if limits is None else limits if isinstance(limits, tuple) else (limits,)
    return limits is None, each, setting.fixed_depth or 0, setting.label


def _frozen(threshold: float | Sequence[float]) -> Threshold:
    return tuple(threshold) if isinstance(threshold, Sequence) else threshold


def _plain(threshold: Threshold | None) -> float | list[float] | None:
    return list(threshold) if isinstance(threshold, tuple) else threshold


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
    head = ["exit threshold", "success", "95 % interval", "mean latent steps"]
    head += ["ms mean", "ms P50", "ms P90", "ms P99", "episodes"]
    rows = [
        [
            setting_of(result).title,
            cell(result["success_rate"], ".1%"),
            f"{result['ci95'][0]:.1%} - {result['ci95'][1]:.1%}",
            cell(result["mean_latent_steps"], ".2f"),
            # Results of older versions lack some.
            *(cell(result.get(name), ".1f") for name in ("ms_mean", "ms_p50", "ms_p90", "ms_p99")),
            f"{result['successes']}/{result['episodes']}"
            + (f" ({_without(result)})" if result["aborted_episodes"] else ""),
        ]
        for result in results
    ]
    if labels is not None:
        head = ["checkpoint", *head]
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    return aligned(head, rows)
