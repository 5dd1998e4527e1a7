"""The picture people came for: success against thinking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.pareto import pareto_front
from avavla_ray.evaluation.plot_names import NamedPoint, place_names
from avavla_ray.evaluation.results import order, setting_of
from avavla_ray.files import atomic_path

PANELS = {"mean_latent_steps": "mean latent steps a decision", "ms_mean": "mean milliseconds a decision"}
# Marker, whether it is filled, line: one threshold for all, several of them, a fixed depth.
_KINDS = {
    "exit threshold": ("o", True, "-"),
    "thresholds by step or family": ("D", True, "none"),
    "fixed depth": ("s", False, "none"),
}


def plot_success_against_cost(
    path: str | Path,
    groups: dict[str, list[dict[str, Any]]],
    title: str,
    budget: Mapping[str, float] | None = None,
) -> None:
    """Draw success rate against mean latent steps and against mean milliseconds a decision, as PNG.

    Filled circles joined by a line are exit thresholds, diamonds thresholds by latent step or by family of tasks, open
    squares fixed depths; bars are 95 % intervals. The broad grey line is the Pareto front of all of them: the most
    success that was seen at no more than this cost. It has no interval: the luckier of two equal settings is on it.

    Args:
        groups: results (evaluation/results.py) by checkpoint label. budget: by cost ("mean_latent_steps" or "ms_mean"),
            drawn as a vertical line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5.6), sharey=True, layout="constrained")
    everything = [result for results in groups.values() for result in results if result["success_rate"] is not None]
    ends = [end for result in everything for end in result["ci95"]]
    for axis, (key, name) in zip(axes, PANELS.items(), strict=True):
        _draw_front(axis, [result for result in everything if result[key] is not None], key)
        for index, (label, results) in enumerate(groups.items()):
            _draw_group(axis, results, key, f"C{index}", label)
        if budget and key in budget:
            axis.axvline(budget[key], color="black", linestyle="--", linewidth=1, label="budget")
        axis.set_xlabel(name)
        axis.set_ylim(max(0.0, min(ends, default=0.0) - 0.06) - 0.03, min(1.0, max(ends, default=1.0) + 0.06) + 0.03)
        axis.margins(x=0.1)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("success rate (95 % interval)")
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(text, handle)
    figure.legend(named.values(), named.keys(), fontsize=8, loc="outside lower center", ncols=4)
    figure.suptitle(title)
    figure.draw_without_rendering()  # places are known from here on
    for axis, key in zip(axes, PANELS, strict=True):
        place_names(axis, [_named_point(result, key, index) for index, result in _numbered(groups, key)])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def _draw_front(axis: Any, results: Sequence[dict[str, Any]], key: str) -> None:
    front = pareto_front([(result[key], result["success_rate"]) for result in results])
    if front:
        corners = [(results[index][key], results[index]["success_rate"]) for index in front]
        corners.append((max(result[key] for result in results), corners[-1][1]))
        axis.step(
            *zip(*corners, strict=True), where="post", color="0.8", linewidth=6, solid_capstyle="round", zorder=0,
            label="Pareto front",
        )  # fmt: skip


def _draw_group(axis: Any, results: Sequence[dict[str, Any]], key: str, colour: str, label: str) -> None:
    """The settings of one checkpoint."""
    points = sorted((r for r in results if r[key] is not None and r["success_rate"] is not None), key=order)
    for kind, (marker, filled, line) in _KINDS.items():
        chosen = [result for result in points if _kind(result) == kind]
        if not chosen:
            continue
        low = [r["success_rate"] - r["ci95"][0] for r in chosen]
        high = [r["ci95"][1] - r["success_rate"] for r in chosen]
        axis.errorbar(
            [r[key] for r in chosen], [r["success_rate"] for r in chosen], yerr=[low, high],
            marker=marker, color=colour, markerfacecolor=colour if filled else "white", linestyle=line,
            linewidth=1.2, elinewidth=0.8, capsize=3, alpha=0.9, label=f"{label}, {kind}",
        )  # fmt: skip


def _kind(result: dict[str, Any]) -> str:
    setting = setting_of(result)
    if setting.exit_threshold is None:
        return "fixed depth"
    several = isinstance(setting.exit_threshold, tuple) or bool(setting.families)
    return "thresholds by step or family" if several else "exit threshold"


def _numbered(groups: dict[str, list[dict[str, Any]]], key: str) -> list[tuple[int, dict[str, Any]]]:
    return [
        (index, result)
        for index, results in enumerate(groups.values())
        for result in sorted(results, key=order)
        if result[key] is not None and result["success_rate"] is not None
    ]


def _named_point(result: dict[str, Any], key: str, index: int) -> NamedPoint:
    setting = setting_of(result)
    name = f"K={setting.fixed_depth}" if setting.exit_threshold is None else setting.title.replace(", ", "\n")
    curve = f"{index}" if _kind(result) == "exit threshold" else None
    low, high = result["ci95"]
    return NamedPoint(result[key], result["success_rate"], low, high, name, f"C{index}", curve)
