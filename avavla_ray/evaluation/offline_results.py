"""From offline records to the numbers that are published, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from avavla_ray.dimensions import dimension_names
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.ledger import RecordLedger
from avavla_ray.evaluation.offline import OfflineRecord
from avavla_ray.evaluation.tables import aligned, cell


class OfflineLedger(RecordLedger[OfflineRecord]):
    """Demonstrations that were walked, a line each at each setting."""

    kind, unit = OfflineRecord, "demonstrations"

    def key(self, record: OfflineRecord) -> tuple[str, str, str]:
        """Setting, data set and episode."""
        return record.setting, record.dataset, record.episode


def summarise_offline(setting: ExitSetting, records: Iterable[OfflineRecord], **identity: Any) -> dict[str, Any]:
    """The result of one exit setting, as its file holds it: over everything, by data set, and by task.

    Args:
        identity: checkpoint, demonstrations, provenance, ...: stored first.
    """
    mine = [record for record in records if record.setting == setting.label]
    datasets = {name: [r for r in mine if r.dataset == name] for name in dict.fromkeys(r.dataset for r in mine)}
    return {
        **identity,
        "exit_threshold": setting.exit_threshold,
        "fixed_depth": setting.fixed_depth,
        **_numbers(mine),
        "datasets": {name: _numbers(members) for name, members in datasets.items()},
        "tasks": [
            {"dataset": name, "task": task, "instruction": members[0].instruction, **_numbers(members)}
            for name, everything in datasets.items()
            for task in sorted({record.task for record in everything})
            if (members := [record for record in everything if record.task == task])
        ],
    }


def _numbers(records: Sequence[OfflineRecord]) -> dict[str, Any]:
    """Means over the steps or decisions of some demonstrations.

    l1: mean normalised error over all dimensions, the training loss (2511.18960 and OpenVLA-OFT train on it, and
    OpenVLA-OFT logs l1_first_action on its own). norm_error: mean L2 norm of a chunk's error in units, as the code
    released with 2606.15099 measures it (there the memory of the episode is reset before every sample, here it is
    kept). norm_error_action: the same of a single action.
    """
    steps, decisions = sum(record.steps for record in records), sum(len(record.norms) for record in records)
    errors, unit_errors, first_errors = (
        np.sum([getattr(record, name) for record in records], axis=0) / count
        for name, count in (("errors", steps), ("unit_errors", steps), ("first_errors", decisions))
    )
    names = dimension_names(len(errors))
    norms, latent_steps, milliseconds = (
        np.concatenate([getattr(record, name) for record in records])
        for name in ("norms", "latent_steps", "milliseconds")
    )
    depths, counts = np.unique(latent_steps.astype(int), return_counts=True)
    return {
        "episodes": len(records),
        "decisions": decisions,
        "steps": steps,
        "l1": float(errors.mean()),
        "l1_dimensions": dict(zip(names, errors.tolist(), strict=True)),
        "l1_dimensions_in_units": dict(zip(names, unit_errors.tolist(), strict=True)),
        "l1_first_action": float(first_errors.mean()),
        "norm_error": float(norms.mean()),
        "norm_error_median": float(np.median(norms)),
        "norm_error_action": sum(record.step_norm for record in records) / steps,
        "gripper_accuracy": sum(record.gripper_agreements for record in records) / steps,
        "mean_latent_steps": float(latent_steps.mean()),
        "exit_histogram": {str(k): int(n) for k, n in zip(depths, counts, strict=True)},
        "ms_mean": float(milliseconds.mean()),
        "ms_p50": float(np.quantile(milliseconds, 0.5)),
        "ms_p90": float(np.quantile(milliseconds, 0.9)),
    }


def title(result: dict[str, Any]) -> str:
    """Name of a result's exit setting."""
    return ExitSetting(result["exit_threshold"], result["fixed_depth"]).title


def offline_tables(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a setting; what was walked; and the L1 of every task, a column a setting."""
    names = list(results[0]["l1_dimensions"])
    head = [
        "exit threshold", "L1", *names, "L1 first action", "norm error", "gripper right", "mean latent steps",
        "ms mean", "ms P50", "ms P90",
    ]  # fmt: skip
    rows = [
        [
            title(result), cell(result["l1"], ".4f"), *(cell(result["l1_dimensions"][name], ".4f") for name in names),
            cell(result["l1_first_action"], ".4f"), cell(result["norm_error"], ".4f"),
            cell(result["gripper_accuracy"], ".1%"), cell(result["mean_latent_steps"], ".2f"),
            *(cell(result[name], ".1f") for name in ("ms_mean", "ms_p50", "ms_p90")),
        ]
        for result in results
    ]  # fmt: skip
    parts = [aligned(head, rows), "L1 is normalised; the norm error of a chunk is in the data's units.\n"]
    parts += [
        f"{data['name']}: {data['episodes']} of {data['episodes_there']} demonstrations, "
        f"{'held out of training' if data['held_out'] else 'NOT known to be held out of training'}\n"
        for data in results[0]["demonstrations"]
    ]
    tasks = [
        [f"{task['dataset']} {task['task']}", task["instruction"], str(task["episodes"])]
        + [cell(result["tasks"][place]["l1"], ".4f") for result in results]
        for place, task in enumerate(results[0]["tasks"])
    ]
    parts.append(aligned(["task", "instruction", "episodes", *(f"L1 at {title(each)}" for each in results)], tasks))
    return "\n".join(parts)
