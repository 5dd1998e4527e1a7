"""Pictures of exit calibration: reliability diagram, labels, training, and the exits to expect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.calibration_report import GateReport, RoleReport
from avavla_ray.evaluation.reliability import Reliability
from avavla_ray.files import atomic_path

MARKERS = "osD^v"


def plot_reliability(
    path: str | Path, gates: Sequence[GateReport], role: RoleReport, delta: float, threshold: float, title: str
) -> None:
    """Draw, as PNG: score against share of labels, over all latent steps and by step, with 95 % Wilson intervals and
    the counts of the bins below; how often the label says exit; and how much value thinking on gains.

    Args:
        gates: before and after; the steps' panels are of the last one. role: of the same decisions.
        delta: of the labels. threshold: the policy's own.
    """
    plt = _pyplot()
    last, asked = gates[-1], range(1, len(gates[-1].steps) + 1)
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), height_ratios=(3, 2), layout="constrained")
    overall = [(each.name, each.overall, f"C{index}") for index, each in enumerate(gates)]
    shades = plt.get_cmap("viridis")
    steps = [
        (f"latent step {k}", each, shades(0.9 * (k - 1) / max(1, len(asked) - 1)))
        for k, each in zip(asked, last.steps, strict=True)
    ]
    for column, series, name in ((0, overall, "all latent steps"), (1, steps, f"by latent step: {last.name}")):
        _diagram(axes[0, column], series, threshold)
        axes[0, column].set_title(name, fontsize=10)
        _counts(axes[1, column], series, threshold)
    _labels(axes[0, 2], gates, role, asked)
    middle = [gains[2] for gains in role.gains]
    for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
        axes[1, 2].fill_between(
            asked, [g[low] for g in role.gains], [g[high] for g in role.gains], alpha=alpha, color="C4", linewidth=0
        )
    axes[1, 2].plot(asked, middle, marker=".", color="C4", label="median; bands hold 50 % and 90 %")
    axes[1, 2].axhline(delta, color="black", linestyle="--", linewidth=0.9, label=f"delta {delta:g}: below, label 1")
    axes[1, 2].set_ylabel("value gained by thinking on")
    axes[1, 2].set_xlabel("after latent step")
    axes[1, 2].set_xticks(list(asked))
    axes[1, 2].legend(fontsize=8)
    axes[1, 2].grid(alpha=0.25)
    figure.suptitle(f"{title}: {role.decisions} decisions of {role.episodes} {role.role} episodes")
    _save(plt, figure, path)


def plot_gate_training(path: str | Path, points: Sequence[dict[str, float]], kept: float, title: str) -> None:
    """Draw the loss, and accuracy and mean score on validation episodes, as PNG.

    Args:
        points: of `train_gate`. kept: step of the gate that was kept.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    panels = (("cross-entropy, nats", ("training/loss", "validation/loss")),
              ("share", ("validation/accuracy", "validation/mean_score")))  # fmt: skip
    for axis, (label, names) in zip(axes, panels, strict=True):
        for name in names:
            known = [point for point in points if name in point]
            axis.plot([p["step"] for p in known], [p[name] for p in known], linewidth=1.3, label=name.replace("_", " "))
        axis.axvline(kept, color="black", linestyle=":", linewidth=0.9, label="kept")
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.25)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(-0.03, 1.03)
    figure.suptitle(title)
    _save(plt, figure, path)


def plot_exits(path: str | Path, gates: Sequence[GateReport], title: str) -> None:
    """Draw the exits to expect, before and after, as PNG: latent steps by threshold, value given up by latent steps."""
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for index, each in enumerate(gates):
        marker = MARKERS[index % len(MARKERS)]
        style: dict[str, Any] = {
            "marker": marker, "markersize": 8 - 2 * index, "color": f"C{index}", "linewidth": 1.2, "label": each.name,
            "markerfacecolor": "none" if index == 0 else f"C{index}",
        }  # fmt: skip
        steps = [exits.latent_steps for exits in each.exits]
        left.plot([exits.threshold for exits in each.exits], steps, **style)
        right.plot(steps, [exits.value_given_up for exits in each.exits], **style)
    left.set_xlabel("exit threshold")
    left.set_ylabel("mean latent steps a decision")
    left.set_ylim(0.8, len(gates[0].steps) + 1.2)
    right.set_xlabel("mean latent steps a decision")
    right.set_ylabel("value given up, V(z_K) - V(z)")
    right.axhline(0.0, color="black", linewidth=0.7)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    figure.suptitle(f"{title}\nreplayed on fixed states: a proposal, not a rollout", fontsize=11)
    _save(plt, figure, path)


def _diagram(axis: Any, series: Sequence[tuple[str, Reliability, Any]], threshold: float) -> None:
    axis.plot((0, 1), (0, 1), color="0.6", linewidth=0.9, linestyle="--")
    axis.axvline(threshold, color="black", linestyle=":", linewidth=0.9)
    for index, (name, each, colour) in enumerate(series):
        x, y = [one.score for one in each.bins], [one.share for one in each.bins]
        low = [one.share - one.interval[0] for one in each.bins]
        high = [one.interval[1] - one.share for one in each.bins]
        axis.plot(x, y, color=colour, linewidth=0.9, alpha=0.45)
        axis.errorbar(
            x, y, yerr=[low, high], marker=MARKERS[index % len(MARKERS)], color=colour, linestyle="none",
            elinewidth=0.8, capsize=3, markersize=5, label=f"{name}: ECE {each.ece:.3f}, Brier {each.brier:.3f}",
        )  # fmt: skip
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("mean score of the bin")
    axis.set_ylabel("share of labels that say exit (95 % Wilson)")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)


def _counts(axis: Any, series: Sequence[tuple[str, Reliability, Any]], threshold: float) -> None:
    width = 0.8 / len(series)
    for index, (name, each, colour) in enumerate(series):
        size = each.bins[0].high - each.bins[0].low
        place = [one.low + size * (0.1 + width * (index + 0.5)) for one in each.bins]
        axis.bar(place, [one.count for one in each.bins], width=width * size, color=colour, label=name)
    axis.axvline(threshold, color="black", linestyle=":", linewidth=0.9)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("score")
    axis.set_ylabel("scores in the bin")
    axis.grid(alpha=0.25, axis="y")


def _labels(axis: Any, gates: Sequence[GateReport], role: RoleReport, asked: range) -> None:
    low = [rate - interval[0] for rate, interval in zip(role.label_rates, role.intervals, strict=True)]
    high = [interval[1] - rate for rate, interval in zip(role.label_rates, role.intervals, strict=True)]
    axis.errorbar(
        asked, role.label_rates, yerr=[low, high], color="black", marker="_", markersize=12, linestyle="none",
        capsize=4, label="labels that say exit (95 % Wilson)",
    )  # fmt: skip
    for index, each in enumerate(gates):
        scores = [one.mean_score for one in each.steps]
        marker = MARKERS[index % len(MARKERS)]
        axis.plot(asked, scores, marker=marker, markersize=5, color=f"C{index}", label=f"mean score, {each.name}")
    axis.set_ylim(-0.03, 1.03)
    axis.set_xticks(list(asked))
    axis.set_xlabel("after latent step")
    axis.set_title("label rate", fontsize=10)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(plt: Any, figure: Any, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
