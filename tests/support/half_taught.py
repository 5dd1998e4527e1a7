"""A suite with an expert for one of its two tasks, and one whose pictures go blank: for tests of collecting."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.base import Observation
from avavla_ray.simulators.experts.expert import NoExpert
from tests.support.point_simulator import MARKS, PointSimulator


class PointExpert:
    """Goes straight to the mark."""

    phase_name = "go"

    def __init__(self, simulator: PointSimulator) -> None:
        self._simulator = simulator

    def act(self) -> np.ndarray:
        direction = MARKS[self._simulator._task] - self._simulator._position
        return np.array([*(direction / np.abs(direction).max()), 0, 0, 0, 0, -1], np.float32)


def make_half_expert(simulator: PointSimulator, *, seed: int, noise: float) -> PointExpert:
    if simulator._task == 1:
        raise NoExpert("no scripted expert for what is on the left")
    return PointExpert(simulator)


class HalfTaughtSimulator(PointSimulator):
    """Nobody can demonstrate its second task."""

    expert = "tests.support.half_taught:make_half_expert"


class BlankSimulator(PointSimulator):
    """From its third step on it sends something else than observations."""

    def __init__(self, *arguments: object, nan: bool = False) -> None:
        super().__init__(*arguments)
        self._nan = nan

    def _observe(self) -> Observation:
        shown = super()._observe()
        if self._steps < 3:
            return shown
        if self._nan:
            return Observation(shown.images, shown.proprio * np.nan, shown.instruction)
        return Observation(np.zeros_like(shown.images), shown.proprio, shown.instruction)
