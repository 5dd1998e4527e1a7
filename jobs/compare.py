#!/usr/bin/env python
"""Draw success rate against mean latent steps, and against milliseconds, from the evaluations in MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison."""

    suite: str = "libero_object"
    labels: tuple[str, ...] = ()
    """Checkpoint labels to compare; all that were evaluated when left out."""
    run_ids: tuple[str, ...] = ()
    """Evaluations to take (their --run-id); all when left out. The newest run of a label and setting counts."""
    output: Path = Path("runs/compare")
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""
    server: str = "http://127.0.0.1:5000"
    """Where `mlflow ui` answers, for the printed link."""


def main(settings: Settings) -> None:
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.plots import plot_success_against_cost
    from avavla_ray.evaluation.results import markdown_table
    from avavla_ray.files import write_text
    from avavla_ray.simulators.registry import entry_of
    from avavla_ray.tracking import compare_link, default_uri, find_runs

    entry_of(settings.suite)
    uri = settings.tracking_uri or default_uri()
    groups: dict[str, list[dict]] = {}
    chosen, seen = [], set()
    finished = f"params.suite = '{settings.suite}' and attributes.status = 'FINISHED'"
    for run in find_runs(uri=uri, kind="evaluation", filters=finished):
        label, setting = run.data.tags["label"], run.data.params["exit_setting"]
        evaluation = run.data.tags["run_key"].rsplit("/", 1)[0]
        if (settings.labels and label not in settings.labels) or (label, setting) in seen:
            continue
        if (settings.run_ids and evaluation not in settings.run_ids) or "success_rate" not in run.data.metrics:
            continue
        seen.add((label, setting))
        chosen.append(run)
        groups.setdefault(label, []).append(_result(run))
    if not chosen:
        raise InputError(
            f"{uri} holds no finished evaluation of {settings.suite} that matches: run jobs/evaluate.py first"
        )
    groups = {
        label: sorted(
            results,
            key=lambda r: (r["exit_threshold"] is None, r["exit_threshold"] or 0.0, r["fixed_depth"] or 0),
        )
        for label, results in sorted(groups.items())
    }

    plot = settings.output / "success_against_latent_steps.png"
    plot_success_against_cost(plot, groups, f"{settings.suite}: what thinking less costs")
    rows = [(label, result) for label, results in groups.items() for result in results]
    table = markdown_table([result for _, result in rows], [label for label, _ in rows])
    write_text(settings.output / "table.md", table)
    print(table)
    print(f"plot:  {plot}")
    print(f"table: {settings.output / 'table.md'}")
    print(f"MLflow:  mlflow ui --backend-store-uri {uri}")
    ids = [run.info.run_id for run in chosen]
    print(f"compare page: {compare_link(ids, chosen[0].info.experiment_id, settings.server)}")


def _result(run) -> dict:
    """An MLflow evaluation run as the result that tables and plots take."""
    metrics, params = run.data.metrics, run.data.params
    return {
        "exit_threshold": float(params["exit_threshold"]) if "exit_threshold" in params else None,
        "fixed_depth": int(params["fixed_depth"]) if "fixed_depth" in params else None,
        "success_rate": metrics["success_rate"],
        "ci95": [metrics["success_rate_low"], metrics["success_rate_high"]],
        "successes": int(metrics["successes"]),
        "episodes": int(metrics["episodes"]),
        "aborted_episodes": int(metrics["aborted_episodes"]),
        **{key: metrics.get(key) for key in ("mean_latent_steps", "ms_mean", "ms_p90")},
    }


if __name__ == "__main__":
    run_job(main, Settings)
