"""Simulators and factories for tests of processes: they meet each other, start threads, or name their process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SuiteSpec

SPEC = SuiteSpec("dot", ("wait",), max_steps=8, num_initial_states=1, action_dim=2, proprio_dim=1, num_cameras=1)
CONFIG = SimulatorConfig(suite="dot", image_size=16)
CHUNK = np.zeros((4, 2), np.float32)


class Dot:
    """The smallest simulator that there is; imports numpy alone."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.spec, self.config, self._steps = SPEC, config, 0

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        return SPEC

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        return {}

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        self._steps = 0
        return self._observe()

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        self._steps += len(actions)
        return ChunkResult(self._observe(), 0.0, False, self._steps >= SPEC.max_steps, len(actions))

    def frames(self) -> list[np.ndarray]:
        return []

    def provenance(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "folder": os.getcwd(), "main": __import__("__main__").__spec__.name}

    def close(self) -> None:
        self._steps = 0

    def _observe(self) -> Observation:
        size = self.config.image_size
        images = np.arange(size * size * 3, dtype=np.uint32).astype(np.uint8).reshape(1, size, size, 3)
        return Observation(images, np.array([self._steps], np.float32), "wait")


class Meeting(Dot):
    """A chunk or a reset ends once `party` processes are in one."""

    def __init__(self, config: SimulatorConfig, folder: Path, party: int) -> None:
        super().__init__(config)
        self._folder, self._party, self._met = folder, party, 0

    def _meet(self) -> None:
        place = self._folder / str(self._met)
        place.mkdir(exist_ok=True)
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < self._party:
            time.sleep(0.005)
        self._met += 1

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        self._meet()
        return super().reset(task, initial_state=initial_state, seed=seed)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        self._meet()
        return super().run_chunk(actions, record=record)


def make_meeting(folder: Path, party: int, config: SimulatorConfig) -> Meeting:
    return Meeting(config, folder, party)


class Hoarder(Dot):
    """Finds no memory."""

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        raise MemoryError


class Inert(Dot):
    """Breaks in a way that is the program's fault."""

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        raise LookupError("no such joint")


class Stuck(Dot):
    """Can't be closed."""

    def close(self) -> None:
        raise RuntimeError("the lid is stuck")
