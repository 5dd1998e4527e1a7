"""Suites with an expert for one of two tasks, that find no room, or show nothing: for tests of what uses experts."""

from __future__ import annotations

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Observation, SimulatorFailure
from avavla_ray.simulators.experts.expert import NoExpert
from tests.support.point_simulator import MARKS, PointSimulator


class PointExpert:
    """Goes straight to the mark."""

    phase_name = "go"

    def __init__(self, simulator: PointSimulator) -> None:
        self._simulator = simulator

    def act(self) -> np.ndarray:
        direction = MARKS[self._simulator._task] - self._simulator._position
        self.intended = np.array([*(direction / np.abs(direction).max()), 0, 0, 0, 0, -1], np.float32)
        return self.intended


def make_half_expert(simulator: PointSimulator, *, seed: int, noise: float) -> PointExpert:
    if noise < 0:
        raise InputError(f"expert noise {noise} is negative: give 0 or more")
    if simulator._task == 1:
        raise NoExpert("no scripted expert for what is on the left")
    return PointExpert(simulator)


class HalfTaughtSimulator(PointSimulator):
    """Nobody can demonstrate its second task."""

    expert = "tests.support.half_taught:make_half_expert"


class CrampedSimulator(HalfTaughtSimulator):
    """Finds no room for the second of its initial states."""

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        if initial_state == 1:
            raise SimulatorFailure("nothing could be placed")
        return super().reset(task, initial_state=initial_state, seed=seed)


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
