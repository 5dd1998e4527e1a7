"""The table of a study of ways of doing PPO, as Markdown and as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.paired import compare_outcomes
from avavla_ray.evaluation.ppo_study import BASE
from avavla_ray.evaluation.results import outcomes_of
from avavla_ray.evaluation.study_curves import SUCCESS, Point, mean_lag, reached, start_success
from avavla_ray.evaluation.tables import aligned, cell

START = "start"  # name of the row of the policy that all runs begin with
HEAD = (
    "variant", "training success", "evaluation", "95 % interval", "difference to base (95 %)", "steps to level",
    "minutes to level", "mean lag", "dropped", "env steps/s", "KL", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run. points: of its curve. result: of its last policy's evaluation (evaluation/results.py)."""

    seed: int
    points: list[Point]
    result: dict[str, Any]


def target(runs: Mapping[str, Sequence[Run]]) -> float | None:
    """The level of training success that is timed: half way from the policy that all began with to 100 %, in whole
    percent as success of 100 episodes is."""
    start = start_success([run.points for some in runs.values() for run in some])
    return None if start is None else round((1.0 + start) / 2, 2)


def rows(runs: Mapping[str, Sequence[Run]], start: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a variant, as study.json holds them, after that of the policy that all began with.

    Evaluations are pooled over seeds: their interval knows of the episodes, and not that seeds differ. The difference
    to the base is over the seeds and initial states that both have played, pair by pair.

    Args:
        runs: by variant; one without any is left out. start: the result of the starting policy.
    """
    level = target(runs)
    found: list[dict[str, Any]] = [{"variant": START, **_pooled([start])}]
    base = _outcomes(runs.get(BASE, ()))
    for variant, some in runs.items():
        if not some:
            continue
        each = [_numbers(run, level) for run in some]
        row = {"variant": variant, **_pooled([run.result for run in some])}
        for name in ("training_success", "mean_lag", "kl", "env_steps_per_s", "dropped_share"):
            known = [one[name] for one in each if one[name] is not None]
            row[name] = fmean(known) if known else None
        if variant != BASE and base:
            paired = compare_outcomes(_outcomes(some), base)
            row["difference"], row["difference_ci95"] = paired.difference, list(paired.ci95)
        found.append({**row, "runs": each})
    return found


def _outcomes(runs: Sequence[Run]) -> dict[Hashable, bool]:
    return {(run.seed, start): won for run in runs for start, won in outcomes_of(run.result).items()}


def _pooled(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    successes, episodes = (sum(result[name] for result in results) for name in ("successes", "episodes"))
    rate = successes / episodes if episodes else None
    return {
        "success_rate": rate, "ci95": list(wilson(successes, episodes)), "successes": successes, "episodes": episodes,
    }  # fmt: skip


def _numbers(run: Run, level: float | None) -> dict[str, Any]:
    last = run.points[-1]
    there = None if level is None else reached(run.points, level)
    return {
        "seed": run.seed,
        "training_success": last.get(SUCCESS),
        "evaluation": {name: run.result[name] for name in ("successes", "episodes")},
        "env_steps": int(last["total/env_steps"]),
        "minutes": last["total/seconds"] / 60,
        "updates": int(last["total/updates"]),
        "env_steps_to_level": None if there is None else there[0],
        "minutes_to_level": None if there is None else there[1],
        "mean_lag": mean_lag(run.points),
        "dropped_share": last.get("total/decisions_dropped", 0.0) / last["total/decisions"],
        "env_steps_per_s": last["total/env_steps"] / last["total/seconds"],
        "kl": fmean(point["learner/kl"] for point in run.points),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    return aligned(HEAD, [_cells(row) for row in found])


def _cells(row: dict[str, Any]) -> list[str]:
    rate = f"{cell(row['success_rate'], '.1%')} ({row['successes']}/{row['episodes']})"
    shown = [row["variant"], cell(row.get("training_success"), ".1%"), rate,
             f"{row['ci95'][0]:.1%} - {row['ci95'][1]:.1%}"]  # fmt: skip
    if row["variant"] == START:
        return [*shown, *["-"] * (len(HEAD) - len(shown))]
    gain = "-"
    if row.get("difference") is not None:
        low, high = row["difference_ci95"]
        gain = f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) points"
    return [
        *shown, gain, _to_level(row["runs"], "env_steps_to_level", ",.0f"),
        _to_level(row["runs"], "minutes_to_level", ".1f"), cell(row["mean_lag"], ".2f"),
        cell(row["dropped_share"], ".1%"), cell(row["env_steps_per_s"], ".0f"), cell(row["kl"], ".4f"),
        " ".join(str(run["seed"]) for run in row["runs"]),
    ]  # fmt: skip


def _to_level(runs: Sequence[dict[str, Any]], name: str, form: str) -> str:
    """The mean over the seeds that got there, and how many did."""
    there = [run[name] for run in runs if run[name] is not None]
    mean = format(fmean(there), form) if there else "-"
    return f"{mean} ({len(there)} of {len(runs)})"


def report(found: Sequence[dict[str, Any]], level: float | None, title: str, pictures: Mapping[str, str]) -> str:
    """study.md.

    Args:
        level: see `target`. pictures: what each shows, by the name of its file.
    """
    said = "" if level is None else f" Level: {level:.0%} of the last 100 training episodes, half way from the start."
    notes = (
        "Training success is that of the last 100 episodes, mean over seeds; minutes are of training alone, without "
        "start-up and pauses. Evaluations of the last policies are pooled over seeds; differences are paired by seed "
        f"and initial state. Lag: mean over the second half of the updates.{said}"
    )
    shown = "\n\n".join(f"![{words}]({name})" for name, words in pictures.items())
    return f"# {title}\n\n{table(found)}\n{notes}\n\n{shown}\n"
