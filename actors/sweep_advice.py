"""What a sweep of exit settings recommends in the end, and what is to be said about that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.sweep_exit import Sweep
from actors.sweep_report import Report
from avavla_ray.evaluation.budget import MILLISECONDS, STEPS, Budget
from avavla_ray.evaluation.choice import choose
from avavla_ray.evaluation.proposal import NOTE
from avavla_ray.evaluation.results import setting_of


def advise(
    settings: Any, report: Report, results: Sequence[dict[str, Any]], budget: Budget | None, sweep: Sweep | None = None
) -> None:
    """Tables, picture, recommendation and preset; with `sweep` the recommended setting is confirmed first."""
    suites = list(dict.fromkeys(result["suite"] for result in results))
    label, cost = results[0]["label"], STEPS if budget is None else budget.cost
    rows = report.finish(results, f"{label} on {', '.join(suites)}: what thinking less costs", budget)
    by_title = {setting_of(result).title: setting_of(result) for result in results}
    choice = [row for row in rows if settings.recommend == "any" or by_title[row.title].fixed_depth is None]
    best = choose(choice, cost, budget, settings.give_up)
    chosen = None if best is None else by_title[best.title]
    notes = [f"Chosen among {len(choice)} settings: the best of many looks better than it is."]
    if len(choice) < len(rows):
        cheaper = choose(rows, cost, budget, settings.give_up)
        if cheaper is not None and cheaper != best:
            notes.append(f"Fixed depths were no choice; by the same rule it would have been {cheaper.title}.")
    if sweep is not None and chosen is not None:
        notes += [*sweep.compare(chosen), *sweep.confirm(chosen)]
    if sweep is None:
        notes.append("Not confirmed on further initial states: that goes with a sweep of one suite.")
    if sweep is not None and sweep.ended_early:
        notes.append(
            f"{sweep.ended_early} settings were ended early: the chance of ending one that should have gone on is at "
            f"most {settings.error_rate:g} for each pair of a setting and what it was held against."
        )
    notes += given_up(results)
    if cost == MILLISECONDS:
        notes.append("Milliseconds are those of this machine while it played, other processes included.")
    if settings.proposed or settings.search != "grid":
        notes.append(f"First settings: {NOTE[0].lower()}{NOTE[1:]}")
    rule = (
        f"the highest success with {budget}"
        if budget is not None
        else f"the cheapest in {cost} that gives up at most {100 * settings.give_up:g} points of the highest success"
    )
    if len(choice) < len(rows):
        rule += ", of the settings where the gate decides"
    found = {
        "label": label, "suites": suites, "checkpoint": results[0]["checkpoint"],
        "episodes": sum(result["episodes"] for result in results if setting_of(result) == chosen), "notes": notes,
    }  # fmt: skip
    report.recommend(rows, best, chosen, cost, rule, notes, found)
    print(
        f"\nrecommended: {'none within the budget' if best is None else best.title}; see {settings.output}", flush=True
    )


def given_up(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each setting without some of its episodes, which it names."""
    lines = []
    for result in results:
        lost = ", ".join(f"task {each['task']} state {each['initial_state']}" for each in result["aborted"])
        if lost:
            lines.append(
                f"{setting_of(dict(result)).title} on {result['suite']}: simulators gave up "
                f"{result['aborted_episodes']} episodes, which count nowhere ({lost}); --resume plays them again."
            )
    return lines
