"""Learning curves of several ways of doing PPO, against environment steps and against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from avavla_ray.evaluation.ppo_study import Line
from avavla_ray.evaluation.study_curves import Curve, mean_curve
from avavla_ray.files import atomic_path

AXES = {"env_steps": "environment steps", "minutes": "minutes of training"}


def plot_panel(
    path: str | Path, title: str, shown: Sequence[Line], curves: Mapping[str, Sequence[Curve]],
    level: float | None = None,
) -> None:  # fmt: skip
    """Draw success against environment steps and against minutes as PNG: every seed thin, their mean thick.

    Args:
        shown: one of which there are no curves is left out. curves: by variant, one a seed.
        level: drawn as a horizontal line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True, layout="constrained")
    for panel, (axis, name) in zip(panels, AXES.items(), strict=True):
        for line in shown:
            own = [curve for curve in curves.get(line.variant, ()) if curve.success.size]
            if not own:
                continue
            style = {"color": f"C{line.colour}", "linestyle": "--" if line.dashed else "-"}
            for curve in own:
                dot = "." if curve.success.size == 1 else None  # no line has one end
                panel.plot(getattr(curve, axis), curve.success, linewidth=0.7, alpha=0.45, marker=dot, **style)
            label = f"{line.label} ({len(own)} seed{'s' if len(own) > 1 else ''})"
            panel.plot(*mean_curve(own, axis), linewidth=2.2, label=label, **style)
        if level is not None:
            panel.axhline(level, color="black", linewidth=0.8, linestyle=":")
        panel.set_xlabel(name)
        panel.set_xlim(left=0)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("success rate (last 100 training episodes)")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize=8)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
