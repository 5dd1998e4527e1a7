"""Where a policy thinks: how many latent steps its decisions take, when in an episode, and at which task."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avavla_ray.evaluation.results import TENTHS, order, setting_of
from avavla_ray.files import atomic_path


def plot_thinking(path: str | Path, results: Sequence[dict[str, Any]], title: str) -> bool:
    """Draw as PNG: of each exit threshold the shares of its decisions by latent steps taken; and its mean latent steps
    in each tenth of an episode, and at each task.

    Fixed depths are left out, since they think everywhere alike, and so are settings without a finished episode and
    results of older versions, which do not say when. With nothing left, nothing is drawn and no file written.

    Args:
        results: of one checkpoint on one suite (evaluation/results.py).

    Returns:
        whether there was something to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    gated = [
        result for result in sorted(results, key=order)
        if setting_of(result).fixed_depth is None and result["decisions"] and "steps_by_phase" in result
    ]  # fmt: skip
    if not gated:
        return False
    tasks = {task["task"]: task["instruction"] for result in gated for task in result["tasks"]}
    height = max(3.6, 1.4 + 0.3 * max(len(gated), len(tasks)))
    figure, (shares, phases, by_task) = plt.subplots(
        1, 3, figsize=(16, height), width_ratios=(3, 3, 4), layout="constrained"
    )
    names = [setting_of(result).title for result in gated]
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(gated))).tolist()
    _draw_shares(shares, gated, names)
    for result, colour, name in zip(gated, colours, names, strict=True):
        steps = [np.nan if mean is None else mean for mean in result["steps_by_phase"]]
        phases.plot([100 * (tenth + 0.5) / TENTHS for tenth in range(TENTHS)], steps, ".-", color=colour, label=name)
        rows = [task for task in result["tasks"] if task["mean_latent_steps"] is not None]
        by_task.plot([row["mean_latent_steps"] for row in rows], [row["task"] for row in rows], "o", color=colour)
    phases.set_xlim(0, 100)
    phases.set_xlabel("% of the episode's decisions")
    phases.set_ylabel("mean latent steps")
    by_task.set_yticks(
        list(tasks), [f"{task}: {textwrap.shorten(text, 52)}" for task, text in tasks.items()], fontsize=7
    )
    by_task.yaxis.tick_right()
    by_task.invert_yaxis()
    by_task.set_xlabel("mean latent steps")
    for axis in (phases, by_task):
        axis.grid(alpha=0.25)
    figure.legend(
        *phases.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=min(len(gated), 9),
        title="exit threshold", title_fontsize=8,
    )  # fmt: skip
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
    return True


def _draw_shares(axis: Any, results: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """A bar a setting, cut into the shares of its decisions that took 0, 1, ... latent steps."""
    import matplotlib

    depths = sorted({int(steps) for result in results for steps in result["exit_histogram"]})
    shades = matplotlib.colormaps["YlOrRd"]
    left = [0.0] * len(results)
    for depth in depths:
        counts = [result["exit_histogram"].get(str(depth), 0) / result["decisions"] for result in results]
        shade = shades(0.15 + 0.75 * depth / max(1, depths[-1]))
        bars = axis.barh(range(len(results)), counts, left=left, color=shade, edgecolor="white", label=f"{depth}")
        axis.bar_label(bars, [str(depth) if share > 0.06 else "" for share in counts], label_type="center", fontsize=8)
        left = [start + share for start, share in zip(left, counts, strict=True)]
    axis.set_yticks(range(len(results)), names, fontsize=8)
    axis.set_ylim(max(len(results), 4) - 0.5, -0.5)  # few bars are no thicker
    axis.set_xlim(0, 1)
    axis.set_ylabel("exit threshold")
    axis.set_xlabel("share of decisions, by latent steps taken")
