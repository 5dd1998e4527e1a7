"""How a cloning went, from the MLflow run that it noted: curve.jsonl and learning_curve.png beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avavla_ray.files import atomic_path, write_text
from avavla_ray.tracked_run import client_of, without_password
from avavla_ray.tracking import NOTE

CURVE, PICTURE = "curve.jsonl", "learning_curve.png"
DRAWN = {"train/l1": "training", "val/l1": "held out"}
KEPT = (*DRAWN, "train/loss", "train/learning_rate", "train/stage", "train/decisions_per_s")

Point = dict[str, float]


def keep_cloning_curve(folder: Path, uri: str) -> None:
    """Write both files. A store that is away costs the curve, not the proof, and is said.

    Args:
        folder: of a finished run of jobs/bc_libero.py or bc_calvin.py. uri: of MLflow's store.
    """
    from mlflow.exceptions import MlflowException

    run = json.loads((folder / NOTE).read_text(encoding="utf-8"))["run"]
    try:
        points = cloning_points(client_of(uri), run)
    except MlflowException as error:
        print(f"no learning curve of {folder}: {str(error).splitlines()[0]}", flush=True)
        return
    if not points:
        print(f"no learning curve of {folder}: {without_password(uri)} has no numbers of its run {run}", flush=True)
        return
    write_text(folder / CURVE, "".join(f"{json.dumps(point)}\n" for point in points))
    plot_cloning(folder / PICTURE, points, f"Cloning, {folder.name}")


def cloning_points(client: Any, run: str) -> list[Point]:
    """By rising step, each with "step" and those of KEPT that were logged then; of a step that was done again, the
    last."""
    points: dict[int, Point] = {}
    for name in KEPT:
        for metric in sorted(client.get_metric_history(run, name), key=lambda metric: metric.timestamp):
            points.setdefault(metric.step, {"step": metric.step})[name] = metric.value
    return [points[step] for step in sorted(points)]


def plot_cloning(path: Path, points: list[Point], title: str) -> None:
    """The error of normalised actions over optimizer steps, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, label in DRAWN.items():
        known = [point for point in points if name in point]
        if not known:  # nothing was held out
            continue
        axis.plot([point["step"] for point in known], [point[name] for point in known], marker=".", label=label)
    axis.set_xlabel("optimizer steps")
    axis.set_ylabel("L1 of normalised actions")
    axis.set_yscale("log")
    axis.grid(alpha=0.25, which="both")
    axis.legend()
    axis.set_title(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
