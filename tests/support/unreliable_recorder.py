"""A recorder that breaks, dies and hangs at known attempts: for tests of what survives that."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from avavla_ray.demonstrations.collection import Attempt
from avavla_ray.demonstrations.recording import Recording
from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.simulators.experts.expert import NoExpert
from tests.support.demonstration_data import make_episode

SEEDS = {Attempt(task, number).seed(0): number for task in range(2) for number in range(40)}


class UnreliableRecorder:
    """Synthetic episodes; attempt 1 breaks once, 2 kills its process once, 3 hangs once, 4 always breaks, 5 is not
    solved. A file per event remembers that it has happened."""

    def __init__(self, trouble: Path | None) -> None:
        self._trouble = trouble

    def _first_time(self, task: int, number: int) -> bool:
        marker = self._trouble / f"{task}-{number}"
        seen = marker.exists()
        marker.touch()
        return not seen

    def record(self, task: int, seed: int) -> Recording:
        number = SEEDS[seed]
        if number == 5:
            return Recording(False, [], np.zeros((0, 0)), np.zeros((0, 0)), 0, 9, "x")
        if self._trouble is not None and number in (1, 2, 3, 4) and (number == 4 or self._first_time(task, number)):
            if number == 2:
                os._exit(1)
            if number == 3:
                time.sleep(60)
            raise SimulatorFailure("physics diverged")
        made = make_episode(number, 6, task=task, size=16)
        return Recording(True, made.images, made.proprio, made.actions, 0, 6, made.info.instruction)

    def provenance(self) -> dict[str, object]:
        return {"simulator": "synthetic"}


class DiesBeforeItsFirstEpisode(UnreliableRecorder):
    """Its process ends when it is first asked what it is."""

    def provenance(self) -> dict[str, object]:
        if self._first_time(0, -1):
            os._exit(1)
        return super().provenance()


class HangsBesideOthers(UnreliableRecorder):
    """Task 0 hangs once, while attempts at task 1 end twice a second."""

    def record(self, task: int, seed: int) -> Recording:
        if task == 0 and self._first_time(0, 0):
            time.sleep(60)
        time.sleep(0.5)
        made = make_episode(SEEDS[seed], 6, task=task, size=16)
        return Recording(True, made.images, made.proprio, made.actions, 0, 6, made.info.instruction)


class CannotDoTasks(UnreliableRecorder):
    """Some tasks have no expert."""

    def __init__(self, *tasks: int) -> None:
        super().__init__(None)
        self._cannot = tasks

    def record(self, task: int, seed: int) -> Recording:
        if task in self._cannot:
            raise NoExpert("no scripted expert for the microwave")
        return super().record(task, seed)


class BreaksAtTask(UnreliableRecorder):
    """One task breaks its simulator every time."""

    def __init__(self, task: int) -> None:
        super().__init__(None)
        self._breaks_at = task

    def record(self, task: int, seed: int) -> Recording:
        if task == self._breaks_at:
            raise SimulatorFailure("its process died", "crash")
        return super().record(task, seed)
