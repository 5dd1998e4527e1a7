"""How PPO went: success, thinking and the learner's diagnostics against environment steps."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from avavla_ray.files import atomic_path

OF_A_TASK = "rollout/task_success/"
OVER_TASKS = "rollout/mean over tasks"
PANELS = (
    ("success rate (last episodes)", ("rollout/success_rate", OVER_TASKS)),
    ("mean latent steps", ("rollout/mean_latent_steps",)),
    ("approximate KL, clip fraction", ("learner/kl", "learner/clip_fraction")),
    ("explained variance, lag / 10", ("learner/explained_variance", "learner/lag")),
)
SCALE = {"learner/lag": 0.1}


def plot_learning_curve(path: str | Path, points: list[dict[str, float]], title: str) -> None:
    """Draw the panels as PNG.

    Success is drawn of all episodes, which a curriculum takes from the tasks that are neither lost nor won, and as the
    mean over tasks. Where a divergence exceeds 1, its axis is logarithmic beyond 0.1: it may exceed 1000.

    Args:
        points: one per update, with "total/env_steps" and the names in PANELS; a point may lack some.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = [_with_mean_over_tasks(point) for point in points]
    far = any(point.get("learner/kl", 0.0) > 1 for point in points)
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), sharex=True, layout="constrained")
    for axis, (label, names) in zip(axes.flat, PANELS, strict=True):
        for name in names:
            known = [point for point in points if name in point]
            axis.plot(
                [point["total/env_steps"] for point in known],
                [SCALE.get(name, 1.0) * point[name] for point in known],
                marker=".", linewidth=1.2, label=name.split("/")[1],
            )  # fmt: skip
        axis.set_ylabel(label)
        if far and "learner/kl" in names:
            axis.set_yscale("symlog", linthresh=0.1)
        axis.grid(alpha=0.25)
        if len(names) > 1:
            axis.legend(fontsize=8)
    axes[0, 0].set_ylim(-0.03, 1.03)
    for axis in axes[1]:
        axis.set_xlabel("environment steps")
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def _with_mean_over_tasks(point: dict[str, float]) -> dict[str, float]:
    rates = [rate for name, rate in point.items() if name.startswith(OF_A_TASK)]
    return point if len(rates) < 2 else {**point, OVER_TASKS: fmean(rates)}
