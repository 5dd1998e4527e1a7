"""Simulators that write down themselves what happens in them, whatever becomes of those who ask."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.simulators import registry
from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig, SuiteSpec

EVERY_S = 0.1  # between two notes that a simulator plays


class RecordedSimulator:
    """`simulator`, which appends a line of JSON to `file` when an episode ends in it, and now and then when it plays.

    A line has "time" (seconds since 1970), "pid" of the simulator's process and "owner", its runner's; that of an
    episode also "task", "seed", "steps" and "success". It is written before the result is sent.
    """

    def __init__(self, simulator: Simulator, file: Path) -> None:
        self._simulator, self._file = simulator, file
        self.spec, self.config = simulator.spec, simulator.config
        self._episode: dict[str, Any] = {}
        self._noted = 0.0
        # A simulator's process is a child of the one that it was forked from, and that is its runner's.
        self._owner = parent_of(os.getppid())

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`."""
        return registry.suite_spec(suite)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`."""
        return registry.identify(config)

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        self._episode = {"task": task, "seed": seed, "steps": 0}
        return self._simulator.reset(task, initial_state=initial_state, seed=seed)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        result = self._simulator.run_chunk(actions, record=record)
        self._episode["steps"] += result.duration
        if result.done:
            self._note(**self._episode, success=bool(result.success))
        elif time.time() - self._noted > EVERY_S:
            self._note()
        return result

    def frames(self) -> list[np.ndarray]:
        return self._simulator.frames()

    def provenance(self) -> dict[str, Any]:
        return {**self._simulator.provenance(), "recorded": True}

    def close(self) -> None:
        self._simulator.close()

    def _note(self, **entry: Any) -> None:
        self._noted = time.time()
        line = json.dumps({"time": self._noted, "pid": os.getpid(), "owner": self._owner, **entry}) + "\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())  # whole, beside other processes, which append as well
        finally:
            os.close(descriptor)


def make_recorded(
    factory: Callable[[SimulatorConfig], Simulator], file: Path, config: SimulatorConfig
) -> RecordedSimulator:
    """A factory when its first two arguments are given."""
    return RecordedSimulator(factory(config), file)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
