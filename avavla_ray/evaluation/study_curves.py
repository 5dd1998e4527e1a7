"""Learning curves of several runs: reading, joining over seeds, and when they reach a level.

T updates of a run that are drawn, S seeds, G points of a grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUCCESS = "rollout/success_rate"
WINDOW = 100  # episodes that it is a mean over
SETTLED = 20  # below so many episodes it says nothing
GRID = 200

Point = dict[str, float]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Success of the last 100 episodes as training went on.

    Attributes:
        env_steps, minutes, success: (T,) each; minutes without start-up and without pauses between resumptions.
    """

    env_steps: Array
    minutes: Array
    success: Array


def read_points(path: Path) -> list[Point]:
    """A run's curve.jsonl, a point an update; half a line at its end, of a run that was killed, is left out."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def curve_of(points: Sequence[Point]) -> Curve:
    """What is drawn of them: from 20 episodes on, or of a run that had fewer its last update."""
    known = [point for point in points if SUCCESS in point]
    settled = [point for point in known if point["total/episodes"] >= SETTLED] or known[-1:]
    return Curve(
        np.array([point["total/env_steps"] for point in settled], float),
        np.array([point["total/seconds"] / 60 for point in settled], float),
        np.array([point[SUCCESS] for point in settled], float),
    )


def mean_curve(curves: Sequence[Curve], axis: str) -> tuple[Array, Array]:
    """Mean success of S seeds on a grid, (G,) and (G,), over the stretch that all of them have; empty where none is.

    Args:
        axis: "env_steps" or "minutes".
    """
    own = [(getattr(curve, axis), curve.success) for curve in curves if curve.success.size]
    if not own:
        return np.zeros(0), np.zeros(0)
    begin, end = max(x[0] for x, _ in own), min(x[-1] for x, _ in own)
    if begin > end:
        return np.zeros(0), np.zeros(0)
    grid = np.linspace(begin, end, GRID)
    return grid, np.mean([np.interp(grid, x, y) for x, y in own], axis=0)


def start_success(runs: Sequence[Sequence[Point]]) -> float | None:
    """How the policy played that all runs began with: over their first updates' episodes, pooled."""
    first = [next((point for point in points if SUCCESS in point), None) for points in runs]
    seen = [(point[SUCCESS], min(point["total/episodes"], WINDOW)) for point in first if point is not None]
    episodes = sum(count for _, count in seen)
    return sum(rate * count for rate, count in seen) / episodes if episodes else None


def reached(points: Sequence[Point], level: float) -> tuple[float, float] | None:
    """(environment steps, minutes) at the first update whose last 100 episodes succeeded so often; None if none did.

    Fewer episodes don't count: of the first two one may succeed by chance.
    """
    for point in points:
        if point["total/episodes"] >= WINDOW and point.get(SUCCESS, 0.0) >= level:
            return point["total/env_steps"], point["total/seconds"] / 60
    return None


def mean_lag(points: Sequence[Point]) -> float | None:
    """Versions between the weights that decided and those that learned, over the decisions of the run's second half:
    in the first updates nothing can be old. None before the first update."""
    half = points[len(points) // 2 :]
    decisions = sum(point["learner/decisions"] for point in half)
    return sum(point["learner/lag"] * point["learner/decisions"] for point in half) / decisions if decisions else None
