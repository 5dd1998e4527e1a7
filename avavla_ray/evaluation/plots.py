"""The picture people came for: success against thinking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avavla_ray.files import atomic_path


def plot_success_against_cost(path: str | Path, groups: dict[str, list[dict[str, Any]]], title: str) -> None:
    """Draw success rate against mean latent steps and against mean milliseconds a decision, as PNG.

    Filled circles joined by a line are exit thresholds, open squares fixed depths; bars are 95 % Wilson intervals.

    Args:
        groups: results (evaluation/results.py) by checkpoint label.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    panels = [
        ("mean_latent_steps", "mean latent steps a decision"),
        ("ms_mean", "mean milliseconds a decision"),
    ]
    for axis, (key, name) in zip(axes, panels, strict=True):
        found = [result[key] for results in groups.values() for result in results if result[key] is not None]
        span = max(found) - min(found) if found else 0.0
        for index, (label, results) in enumerate(groups.items()):
            colour = f"C{index}"
            points = [result for result in results if result[key] is not None]
            gated = sorted((r for r in points if r["exit_threshold"] is not None), key=lambda r: r["exit_threshold"])
            fixed = sorted((r for r in points if r["exit_threshold"] is None), key=lambda r: r["fixed_depth"])
            for chosen, marker, face, line in ((gated, "o", colour, "-"), (fixed, "s", "white", "none")):
                if not chosen:
                    continue
                kind = "exit threshold" if chosen is gated else "fixed depth"
                low = [r["success_rate"] - r["ci95"][0] for r in chosen]
                high = [r["ci95"][1] - r["success_rate"] for r in chosen]
                axis.errorbar(
                    [r[key] for r in chosen], [r["success_rate"] for r in chosen], yerr=[low, high],
                    marker=marker, color=colour, markerfacecolor=face, linestyle=line, linewidth=1.2,
                    elinewidth=0.8, capsize=3, alpha=0.9, label=f"{label}, {kind}",
                )  # fmt: skip
                below = chosen is fixed
                for (x, y), texts in _labels(chosen, key, span).items():
                    axis.annotate(
                        ", ".join(texts), (x, y), textcoords="offset points", fontsize=7, color=colour,
                        xytext=(6, -13 - 9 * index) if below else (6, 6 + 9 * index),
                    )  # fmt: skip
        axis.set_xlabel(name)
        axis.set_ylim(-0.03, 1.03)
        axis.margins(x=0.18)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("success rate (95 % Wilson interval)")
    axes[0].legend(fontsize=8, loc="best")
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def _labels(results: list[dict[str, Any]], key: str, span: float) -> dict[tuple[float, float], list[str]]:
    """Names of the settings at each point; points too near each other for two labels share the first one's.

    Args:
        span: of the axis.
    """
    labels: dict[tuple[float, float], list[str]] = {}
    for result in results:
        name = f"K={result['fixed_depth']}" if result["exit_threshold"] is None else f"{result['exit_threshold']:.2f}"
        x, y = result[key], result["success_rate"]
        near = (at for at in labels if abs(at[0] - x) <= 0.07 * span and abs(at[1] - y) < 0.04)
        labels.setdefault(next(near, (x, y)), []).append(name)
    return labels
