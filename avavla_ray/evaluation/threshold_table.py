"""The table of arXiv 2606.15099 (Table 5): what each exit threshold costs, and what it earns on every suite.

A row an exit setting: mean latent steps, mean and P90 milliseconds a decision, success on each suite and their mean.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.results import order, setting_of
from avavla_ray.evaluation.tables import aligned, cell
from avavla_ray.files import write_text

COSTS = {"mean_latent_steps": "steps", "ms_mean": "mean ms", "ms_p90": "P90 ms"}
NAME = "threshold_table"
_FORMS = (".2f", ".1f", ".1f")
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True)
class Share:
    """A success rate with its 95 % interval, all in [0, 1]."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One exit setting of one checkpoint.

    Attributes:
        costs: as COSTS; each the mean over the suites, None where a suite did not measure it.
        success: by suite; None where the setting was not played. counts: (successes, episodes) of the same.
        mean: of the suites' rates, None unless all were played.
    """

    label: str
    title: str
    costs: tuple[float | None, ...]
    success: dict[str, Share | None]
    counts: dict[str, tuple[int, int]]
    mean: Share | None


def threshold_rows(results: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows from results (evaluation/results.py) of any checkpoints, settings and suites.

    The mean of the suites' rates weighs every suite alike, as the paper's does. Its interval joins the suites' Wilson
    intervals (Zou and Donner, Statistics in Medicine 27, 2008): of one suite it is that suite's own. Costs are means
    over the suites, too; there is none of a setting that lacks a suite, since suites differ.

    Raises:
        InputError: a checkpoint's setting has two results of a suite.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    suites: dict[str, None] = {}
    for result in sorted(results, key=lambda each: (each.get("label", ""), *order(each))):
        label, suite, setting = result.get("label", ""), result["suite"], setting_of(result)
        members = groups.setdefault((label, setting.label), {})
        if suite in members:
            raise InputError(f"two results of {label} at {setting.title} on {suite}: choose one (--run-ids)")
        members[suite] = result
        suites[suite] = None
    names = sorted(suites)
    return [_row(label, members, names) for (label, _), members in groups.items()]


def _row(label: str, members: dict[str, dict[str, Any]], suites: Sequence[str]) -> Row:
    success = {
        suite: Share(members[suite]["success_rate"], *members[suite]["ci95"])
        if suite in members and members[suite]["success_rate"] is not None
        else None
        for suite in suites
    }
    costs = tuple(_mean([members[suite].get(name) if suite in members else None for suite in suites]) for name in COSTS)
    counts = {suite: (result["successes"], result["episodes"]) for suite, result in members.items()}
    title = setting_of(next(iter(members.values()))).title
    return Row(label, title, costs, success, counts, mean_share(list(success.values())))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def mean_share(shares: Sequence[Share | None]) -> Share | None:
    """Mean of independent rates; None if one is missing. For its interval see `threshold_rows`."""
    known = [share for share in shares if share is not None]
    if not known or len(known) < len(shares):
        return None
    rate = sum(share.rate for share in known) / len(known)
    below = math.sqrt(sum((share.rate - share.low) ** 2 for share in known)) / len(known)
    above = math.sqrt(sum((share.high - share.rate) ** 2 for share in known)) / len(known)
    return Share(rate, max(0.0, rate - below), min(1.0, rate + above))


def markdown(rows: Sequence[Row]) -> str:
    """Success in per cent, its 95 % interval behind it."""
    lines = [
        [*names, *(cell(cost, form) for cost, form in zip(row.costs, _FORMS, strict=True))]
        + ["-" if share is None else f"{_percent(share.rate)} ({_interval(share, '-')})" for share in shares]
        for row, names, shares in _cells(rows)
    ]
    return aligned(_head(rows), lines)


def latex(rows: Sequence[Row], caption: str = "") -> str:
    """A table environment that needs no package."""
    head, between = _head(rows), " & "
    texts = len(head) - len(COSTS) - len(_shown(rows))
    lines = [
        between.join(
            [escaped(name) for name in names]
            + ["--" if cost is None else format(cost, form) for cost, form in zip(row.costs, _FORMS, strict=True)]
            + [
                "--" if share is None else rf"{_percent(share.rate)} {{\scriptsize ({_interval(share, '--')})}}"
                for share in shares
            ]
        )
        for row, names, shares in _cells(rows)
    ]
    columns = "l" * texts + "r" * (len(head) - texts)
    body = [
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\hline",
        between.join(map(escaped, head)) + r" \\", r"\hline", *(line + r" \\" for line in lines), r"\hline",
        r"\end{tabular}", *([rf"\caption{{{escaped(caption)}}}"] if caption else []), r"\end{table}",
    ]  # fmt: skip
    return "\n".join(body) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Every number in full, rates in [0, 1]; the ends of each interval and the counts in columns of their own."""
    suites = list(rows[0].success) if rows else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = ("success", "low", "high", "successes", "episodes")
    head = [f"{suite}_{part}" for suite in suites for part in parts]
    writer.writerow(["checkpoint", "exit_setting", *COSTS, *head, "mean_success", "mean_low", "mean_high"])
    for row in rows:
        cells: list[Any] = [row.label, row.title, *row.costs]
        for suite in suites:
            cells += [*_numbers(row.success[suite]), *row.counts.get(suite, (None, None))]
        writer.writerow([*cells, *_numbers(row.mean)])
    return stream.getvalue()


def write_threshold_tables(folder: Path, results: Iterable[dict[str, Any]], caption: str = "") -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.tex; their paths.

    Raises:
        InputError: see `threshold_rows`.
    """
    rows = threshold_rows(results)
    texts = {"md": markdown(rows), "csv": comma_separated(rows), "tex": latex(rows, caption)}
    for ending, text in texts.items():
        write_text(folder / f"{NAME}.{ending}", text)
    return [folder / f"{NAME}.{ending}" for ending in texts]


def escaped(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _shown(rows: Sequence[Row]) -> list[str]:
    """Columns of success: of one suite its mean would say the same again."""
    suites = list(rows[0].success) if rows else []
    return suites if len(suites) == 1 else [*suites, "mean"]


def _head(rows: Sequence[Row]) -> list[str]:
    labels = ["checkpoint"] if len({row.label for row in rows}) > 1 else []
    return [*labels, "exit threshold", *COSTS.values(), *(f"{name} %" for name in _shown(rows))]


def _cells(rows: Sequence[Row]) -> Iterable[tuple[Row, list[str], list[Share | None]]]:
    many = len({row.label for row in rows}) > 1
    for row in rows:
        shares = list(row.success.values())
        yield row, [row.label, row.title] if many else [row.title], shares if len(shares) == 1 else [*shares, row.mean]


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _interval(share: Share, between: str) -> str:
    return f"{_percent(share.low)}{between}{_percent(share.high)}"


def _numbers(share: Share | None) -> tuple[float | None, ...]:
    return (None, None, None) if share is None else (share.rate, share.low, share.high)
