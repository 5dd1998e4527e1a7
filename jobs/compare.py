#!/usr/bin/env python
"""Compare evaluations that MLflow holds: success against mean latent steps and milliseconds, with intervals.

Draws the Pareto front, and where each checkpoint thinks; writes a table of all, and the thresholds' table of arXiv
2606.15099 as Markdown, CSV and LaTeX; prints links to MLflow's own compare page. --pair adds McNemar's test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from avavla_ray.command_line import run_job


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison."""

    suite: tuple[str, ...] = ()
    """Suites to compare on; all that were evaluated when left out. Of several, plots show means over them."""
    labels: tuple[str, ...] = ()
    """Checkpoint labels to compare; all that were evaluated when left out."""
    run_ids: tuple[str, ...] = ()
    """Evaluations to take (their --run-id); all when left out. The newest run of a label, suite and setting counts."""
    sweep: str | None = None
    """Take the trials of this sweep (its --run-id, or its run in MLflow) and nothing else."""
    pair: tuple[str, str] | None = None
    """Two checkpoints (BC PPO), two exit settings (0.55 depth_5), or two points (PPO:0.55 PPO:depth_5) to compare on
    the initial states that both have played."""
    max_latent_steps: float | None = None
    """Draw this budget of mean latent steps."""
    max_ms: float | None = None
    """Draw this budget of mean milliseconds a decision."""
    output: Path = Path("runs/compare")
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""
    server: str = "http://127.0.0.1:5000"
    """Where `mlflow ui` answers, for the printed link."""


PLOT = "success_against_latent_steps.png"


def main(settings: Settings) -> None:
    from avavla_ray.compare_view import of_runs, of_sweep, prepare_view
    from avavla_ray.errors import InputError
    from avavla_ray.evaluation.comparison import Selection, by_label, load_results, newest, over_suites, paired_table
    from avavla_ray.evaluation.plots import plot_success_against_cost
    from avavla_ray.evaluation.results import markdown_table
    from avavla_ray.evaluation.thinking_plot import plot_thinking
    from avavla_ray.evaluation.threshold_table import write_threshold_tables
    from avavla_ray.files import write_text
    from avavla_ray.simulators.registry import entry_of
    from avavla_ray.tracked_run import without_password
    from avavla_ray.tracking import children_of, compare_link, default_uri, find_runs, find_sweep

    for suite in settings.suite:
        entry_of(suite)
    uri = settings.tracking_uri or default_uri()
    sweep = None if settings.sweep is None else find_sweep(settings.sweep, uri=uri).info.run_id
    found = find_runs(uri=uri, kind="evaluation") if sweep is None else children_of(sweep, uri=uri)[::-1]
    chosen = newest(found, Selection(settings.suite, settings.labels, settings.run_ids))
    if not chosen:
        raise InputError(
            f"{without_password(uri)} holds no finished evaluation that matches (suite {settings.suite or 'any'}, "
            f"labels {settings.labels or 'any'}): run jobs/evaluate.py first"
        )
    results = load_results(uri, chosen)
    groups, suites = by_label(results), sorted({result["suite"] for result in results})
    title = f"{suites[0]}: what thinking less costs" if len(suites) == 1 else f"mean over {', '.join(suites)}"

    output = settings.output
    budget = {"mean_latent_steps": settings.max_latent_steps, "ms_mean": settings.max_ms}
    plot_success_against_cost(
        output / PLOT, over_suites(groups), title, {name: most for name, most in budget.items() if most is not None}
    )
    written = [output / PLOT]
    for label, mine in groups.items():
        for suite in suites:
            path = output / f"thinking_{re.sub(r'[^A-Za-z0-9.-]+', '_', f'{label}_{suite}')}.png"
            if plot_thinking(path, [each for each in mine if each["suite"] == suite], f"{label} on {suite}"):
                written.append(path)
    rows = [result for mine in groups.values() for result in mine]
    names = [each["label"] if len(suites) == 1 else f"{each['label']} on {each['suite']}" for each in rows]
    table = markdown_table(rows, names)
    write_text(output / "table.md", table)
    written += [output / "table.md", *write_threshold_tables(output, results, title)]
    print(table)
    if settings.pair is not None:
        pairs = paired_table(groups, settings.pair)
        write_text(output / "pairs.md", pairs)
        written.append(output / "pairs.md")
        print(pairs)
    for path in written:
        print(f"written: {path}")
    print(f"MLflow: mlflow ui --backend-store-uri {without_password(uri)}")
    ids = [run.info.run_id for run in chosen]
    experiment = chosen[0].info.experiment_id
    search = of_runs(ids) if sweep is None or settings.labels or settings.suite else of_sweep(sweep)
    view = prepare_view(uri, experiment, search, settings.server)
    print(f"success over latent steps: {view or 'too many runs for a prepared view: choose fewer, or a --sweep'}")
    print(f"compare page: {compare_link(ids, experiment, settings.server)}")


if __name__ == "__main__":
    run_job(main, Settings)
