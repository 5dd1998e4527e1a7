"""An offline evaluation from data sets to result files, table, figure and MLflow runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.cluster import connect
from actors.offline_evaluator import DataUnits, Walk, walk_demonstrations
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.offline import OfflineRecord
from avavla_ray.evaluation.offline_data import ChosenData
from avavla_ray.evaluation.offline_plot import plot_offline
from avavla_ray.evaluation.offline_results import OfflineLedger, offline_tables, summarise_offline
from avavla_ray.files import write_json, write_text
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import Checkpoint
from avavla_ray.progress import Progress
from avavla_ray.provenance import provenance
from avavla_ray.storage.names import named
from avavla_ray.tracking import track

METRICS = (
    "l1", "l1_first_action", "norm_error", "norm_error_median", "norm_error_action", "gripper_accuracy",
    "mean_latent_steps", "ms_mean", "ms_p50", "ms_p90", "episodes", "decisions", "steps",
)  # fmt: skip


def evaluate_offline(
    checkpoint: Checkpoint,
    chosen: Sequence[ChosenData],
    exits: Sequence[ExitSetting],
    *,
    label: str,
    output: Path,
    run_id: str,
    resume: bool,
    seed: int,
    num_runners: int,
    uri: str,
) -> list[dict[str, Any]]:
    """Walk the chosen demonstrations at every exit setting and leave what came of it in `output` and in MLflow.

    Args:
        label: of the checkpoint in tables. run_id: identity in MLflow. seed: for the record; nothing is drawn.

    Returns:
        The results, one a setting, as their files hold them.

    Raises:
        InputError: the output folder holds another evaluation, or a demonstration can't be read or taken.
    """
    identity = {"checkpoint": checkpoint.digest, "demonstrations": [data.identity() for data in chosen]}
    ledger = OfflineLedger(output / "offline.jsonl", identity, resume)
    for data in chosen:
        print(_announcement(data), flush=True)
    wanted = {
        (setting.label, data.metadata.name, data.metadata.episodes[index].episode)
        for data in chosen for index in data.episodes for setting in exits
    }  # fmt: skip
    todo = []
    for data in chosen:
        for index in data.episodes:
            name = data.metadata.episodes[index].episode
            left = tuple(setting for setting in exits if (setting.label, data.metadata.name, name) not in ledger)
            if left:
                todo.append(Walk(data.metadata.name, index, left))
    with Progress(len(wanted), f"offline {label}", "episodes", done=len(wanted & ledger.records.keys())) as progress:

        def finished(record: OfflineRecord) -> None:
            ledger.add(record)
            made = ledger.records.values()
            progress.advance(l1=sum(sum(r.errors) for r in made) / sum(r.steps * len(r.errors) for r in made))

        if todo:
            connect(cpus=num_runners)
            units = {
                data.metadata.name: DataUnits(data.metadata, Agent(checkpoint.policy, data.statistics))
                for data in chosen
            }
            walk_demonstrations(units, todo, num_runners, finished)

    described = provenance(
        seed=seed, trained=checkpoint.provenance, runners=num_runners,
        deviations=[_announcement(data) for data in chosen if not data.held_out],
    )  # fmt: skip
    records = [record for key, record in ledger.records.items() if key in wanted]
    results = [
        summarise_offline(
            setting, records, kind="offline", label=label, stage=checkpoint.stage, checkpoint=checkpoint.digest,
            checkpoint_path=named(checkpoint.path), demonstrations=[data.described() for data in chosen],
            held_out=all(data.held_out for data in chosen), seed=seed, provenance=described,
        )
        for setting in exits
    ]  # fmt: skip
    write_text(output / "offline.md", offline_tables(results))
    names = ", ".join(data.metadata.name for data in chosen)
    plot_offline(output / "offline.png", results, f"{label} along demonstrations of {names}")
    for setting, result in zip(exits, results, strict=True):
        write_json(_file(setting, output), result)
    for setting, result in zip(exits, results, strict=True):  # all files first: a store may be away
        _log(setting, result, output, uri=uri, run_key=f"{run_id}/{setting.label}", resume=resume)
    return results


def _announcement(data: ChosenData) -> str:
    name, count, there = data.metadata.name, len(data.episodes), len(data.metadata.episodes)
    known = "held out of training" if data.held_out else "the checkpoint does not say which it was trained on"
    units = "" if data.statistics.name == name else f"; in the units of {data.statistics.name}"
    return f"{name}: {count} of {there} demonstrations, {known}{units}"


def _file(setting: ExitSetting, output: Path) -> Path:
    """Of a setting's result."""
    return output / f"offline_{setting.label}.json"


def _log(setting: ExitSetting, result: dict[str, Any], output: Path, *, uri: str, run_key: str, resume: bool) -> None:
    """The result's MLflow run; what the store does not take waits in a folder of its own."""
    with track(
        f"{result['label']} offline {setting.title}", kind="offline", uri=uri, run_key=run_key, resume=resume,
        params={
            "exit_setting": setting.title, "demonstrations": ",".join(result["datasets"]),
            **({"exit_threshold": setting.exit_threshold} if setting.exit_threshold is not None else {}),
            **({"fixed_depth": setting.fixed_depth} if setting.fixed_depth is not None else {}),
        },
        tags={
            "checkpoint": result["checkpoint"], "label": result["label"], "held_out": result["held_out"],
            **result["provenance"],
        },
        output=output / "mlflow" / setting.label,
    ) as run:  # fmt: skip
        run.log_metrics({name: result[name] for name in METRICS})
        run.log_metrics({f"l1_{name}": value for name, value in result["l1_dimensions"].items()})
        run.log_file(_file(setting, output))
        run.log_file(output / "offline.png")
