"""Simulators that fail in the ways real ones do, for tests of what drives them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from avavla_ray.simulators.base import Observation, SimulatorConfig, SimulatorFailure
from tests.support.point_simulator import PointSimulator


class DiesOnce(PointSimulator):
    """Its process is killed at the first reset to task 1 that finds the file `mark` absent."""

    def __init__(self, config: SimulatorConfig, mark: Path) -> None:
        super().__init__(config)
        self._mark = mark

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        if task == 1 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(task, initial_state=initial_state, seed=seed)


def dies_once(mark: Path, config: SimulatorConfig) -> DiesOnce:
    return DiesOnce(config, mark)


def dies_when_first_made(mark: Path, config: SimulatorConfig) -> PointSimulator:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return PointSimulator(config)


def always_breaks(config: SimulatorConfig) -> PointSimulator:
    return PointSimulator(config, fail_every=1)


class BreaksAt(PointSimulator):
    """Breaks at every reset to one task."""

    def __init__(self, config: SimulatorConfig, task: int) -> None:
        super().__init__(config)
        self._breaks_at = task

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        if task == self._breaks_at:
            raise SimulatorFailure("the point has no ground to stand on")
        return super().reset(task, initial_state=initial_state, seed=seed)


def breaks_at(task: int, config: SimulatorConfig) -> BreaksAt:
    return BreaksAt(config, task)
