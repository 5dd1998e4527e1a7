"""Does thinking pay? What an ablation compares, its table and its picture (jobs/ablate.py).

The rows are those of arXiv 2606.15099's ablation (without latent reasoning, without RL, fixed depths, adaptive) and
of arXiv 2511.18960's (without AVA, without the recurrent state). All are played from the same initial states, so that
each is compared with the reference pair by pair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.paired import Paired, compare_outcomes
from avavla_ray.evaluation.results import outcomes_of
from avavla_ray.evaluation.tables import aligned, cell
from avavla_ray.files import atomic_path

PARTS = {"ava": "no AVA", "belief": "no belief", "latent": "no latent reasoning"}


@dataclass(frozen=True)
class Variant:
    """A policy to train.

    Attributes:
        key: its folder. without: parts that it is built without. trained: by which job last.
        start: checkpoint that it goes on from, in the ablation's folder; "" for none.
        played: evaluated at the adaptive setting and all depths, at the depth that is compared, at depth 0, or not at
            all: what others go on from.
    """

    key: str
    name: str
    without: tuple[str, ...]
    trained: Literal["bc", "ppo", "calibrated"]
    start: str = ""
    played: Literal["all", "depth", "zero", ""] = ""

    @property
    def checkpoint(self) -> str:
        """In the ablation's folder."""
        return f"{self.key}/checkpoint"


@dataclass(frozen=True)
class Play:
    """A variant and the exit settings that it is evaluated at."""

    variant: Variant
    thresholds: tuple[float, ...]
    depths: tuple[int, ...]

    @property
    def settings(self) -> list[ExitSetting]:
        return [*(ExitSetting(value) for value in self.thresholds), *(ExitSetting(None, d) for d in self.depths)]


@dataclass(frozen=True)
class Row:
    """A line of the table: a variant at a setting.

    Attributes:
        result: of its evaluation (evaluation/results.py). against: title of the row that it is compared with, and how
            the pairs of episodes came out (a: this row, b: that one); None for the reference itself.
    """

    title: str
    result: dict[str, Any]
    against: tuple[str, Paired] | None = None


def variants(*, with_ppo: bool) -> list[Variant]:
    """In the order in which they can be trained."""
    if not with_ppo:
        return [
            Variant("bc", "full", (), "bc", played="all"),
            *(Variant(f"bc_no_{part}", name, (part,), "bc", played=_alone(part)) for part, name in PARTS.items()),
        ]
    found = [Variant("bc", "no RL", (), "bc", played="depth")]
    for part, name in PARTS.items():
        last = part == "latent"  # PPO trains latent steps: without them cloning is all there is
        named = f"no RL, {name}" if last else name
        found.append(Variant(f"bc_no_{part}", named, (part,), "bc", played=_alone(part) if last else ""))
        if not last:
            found.append(Variant(f"ppo_no_{part}", name, (part,), "ppo", f"bc_no_{part}/checkpoint", played="depth"))
    return [
        *found,
        Variant("ppo", "full, not calibrated", (), "ppo", "bc/checkpoint"),
        Variant("full", "full", (), "calibrated", "ppo/checkpoint", played="all"),
    ]


def _alone(part: str) -> Literal["depth", "zero"]:
    return "zero" if part == "latent" else "depth"


def play_list(family: Sequence[Variant], depth: int, depths: Sequence[int], threshold: float) -> list[Play]:
    """What is evaluated of them."""
    settings: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
        "all": ((threshold,), tuple(dict.fromkeys([depth, *depths]))), "depth": ((), (depth,)), "zero": ((), (0,)),
    }  # fmt: skip
    return [Play(variant, *settings[variant.played]) for variant in family if variant.played]


def read_rows(folder: Path, plays: Sequence[Play], depth: int) -> list[Row]:
    """From the evaluations' folders, named by their variants' keys: the reference (full, at `depth`) first."""
    results: dict[str, dict[str, Any]] = {}
    for play in plays:
        for setting in play.settings:
            title = f"{play.variant.name}, {'adaptive ' if setting.fixed_depth is None else ''}{setting.title}"
            path = folder / play.variant.key / f"{setting.label}.json"
            results[title] = json.loads(path.read_text(encoding="utf-8"))
    reference, bare = f"full, fixed depth {depth}", f"no RL, fixed depth {depth}"
    rows = [Row(reference, results[reference])]
    for title, result in results.items():
        if title == reference:
            continue
        against = bare if title.startswith("no RL, no ") and bare in results else reference
        paired = compare_outcomes(outcomes_of(result), outcomes_of(results[against]))
        rows.append(Row(title, result, (against, paired)))
    return rows


def ablation_table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    head = ["policy", "success", "95 % interval", "difference (95 %)", "compared with", "p (McNemar)",
            "mean latent steps", "ms mean", "ms P90", "episodes"]  # fmt: skip
    lines = []
    for row in rows:
        result, gain, other, p = row.result, "", "", ""
        if row.against is not None:
            other, paired = row.against
            p = f"{paired.p_value:.3f}"
            if paired.difference is not None:
                low, high = paired.ci95
                gain = f"{100 * paired.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) points"
        lines.append([
            row.title, cell(result["success_rate"], ".1%"), f"{result['ci95'][0]:.1%} - {result['ci95'][1]:.1%}",
            gain, other, p, cell(result["mean_latent_steps"], ".2f"), cell(result["ms_mean"], ".1f"),
            cell(result["ms_p90"], ".1f"), f"{result['successes']}/{result['episodes']}",
        ])  # fmt: skip
    return aligned(head, lines)


def plot_ablation(path: Path, rows: Sequence[Row], title: str) -> None:
    """Success with its 95 % Wilson interval, mean latent steps and milliseconds of each row, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 1.2 + 0.42 * len(rows)), sharey=True, layout="constrained",
        gridspec_kw={"width_ratios": [3, 1, 1]},
    )  # fmt: skip
    places = range(len(rows))
    reference = rows[0].result
    left.axvspan(*reference["ci95"], color="C0", alpha=0.08)
    left.axvline(reference["success_rate"] or 0.0, color="C0", linewidth=0.8, alpha=0.5)
    for place, row in zip(places, rows, strict=True):
        rate, (low, high) = row.result["success_rate"], row.result["ci95"]
        if rate is None:
            continue
        colour = "C0" if row.title.startswith("full") else "C1"
        left.errorbar(rate, place, xerr=[[rate - low], [high - rate]], marker="o", color=colour, capsize=3)
        left.annotate(f"{rate:.0%}", (rate, place), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
        for axis, key, form in ((middle, "mean_latent_steps", ".1f"), (right, "ms_mean", ".0f")):
            value = row.result[key] or 0.0
            axis.barh(place, value, height=0.5, color=colour, alpha=0.7)
            axis.annotate(format(value, form), (value, place), textcoords="offset points", xytext=(3, -3), fontsize=8)
    left.set_yticks(list(places), [row.title for row in rows], fontsize=9)
    left.invert_yaxis()
    left.set_xlim(-0.02, 1.05)
    left.set_xlabel("success rate (95 % Wilson interval)")
    middle.set_xlabel("mean latent steps")
    right.set_xlabel("ms a decision")
    for axis in (middle, right):
        axis.margins(x=0.25)
    for axis in (left, middle, right):
        axis.grid(alpha=0.25, axis="x")
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
