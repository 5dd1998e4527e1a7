"""Faults on purpose, in the process of a simulator that is otherwise what it is: to show what becomes of them.

IsolatedSimulator(partial(make_faulty, make_simulator, FaultPlan(folder)), config)
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.simulators import registry
from avavla_ray.simulators.base import ChunkResult, Observation, Simulator, SimulatorConfig, SimulatorFailure, SuiteSpec

# Fault -> the kind of SimulatorFailure that it has to be reported as.
FAULTS = {
    "segmentation fault": "crash",
    "killed": "crash",
    "exit": "crash",
    "memory": "memory",
    "hang": "hang",
    "hang holding the interpreter": "hang",
    "hang in reset": "hang",
    "nan": "garbage",
    "constant image": "garbage",
    "physics": "physics",
}
PIECE = 2**26
FOREVER_S = 10**6


@dataclass(frozen=True)
class FaultPlan:
    """One fault at every `every`-th chunk, counted over all processes that follow the plan, in the order of `faults`.

    Attributes:
        folder: where they count together, and write down how episodes ended.
        hoard_bytes: what the fault "memory" allocates.
    """

    folder: Path
    every: int = 20
    faults: tuple[str, ...] = tuple(FAULTS)
    hoard_bytes: int = 2**33

    def next_chunk(self) -> str | None:
        """Count a chunk; the fault that is due at it."""
        with open(self.folder / "chunks", "a+", encoding="ascii") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            counter.seek(0)
            chunk = int(counter.read() or 0) + 1
            counter.truncate(0)
            counter.write(str(chunk))
        turn, rest = divmod(chunk, self.every)
        return None if rest else self.faults[(turn - 1) % len(self.faults)]

    def write_down(self, name: str, **entry: Any) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def read(self, name: str) -> list[dict[str, Any]]:
        """What was written down under that name: "faults" as they struck, or "endings" of episodes."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class FaultySimulator:
    """`simulator`, struck by the faults of a plan."""

    def __init__(self, simulator: Simulator, plan: FaultPlan) -> None:
        self._simulator, self._plan = simulator, plan
        self.spec, self.config = simulator.spec, simulator.config
        self._episode: dict[str, Any] = {}

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`."""
        return registry.suite_spec(suite)

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `Simulator.identify`."""
        return registry.identify(config)

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        ordered = self._plan.folder / "hang in the next reset"
        if ordered.exists():
            ordered.unlink()
            self._plan.write_down("faults", fault="hang in reset")
            time.sleep(FOREVER_S)
        self._episode = {"task": task, "seed": seed, "initial_state": initial_state, "steps": 0}
        return self._simulator.reset(task, initial_state=initial_state, seed=seed)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        fault = self._plan.next_chunk()
        if fault == "hang in reset":
            (self._plan.folder / "hang in the next reset").touch()
        elif fault is not None:
            self._plan.write_down("faults", fault=fault)
            strike(fault, self._plan.hoard_bytes)
        result = self._simulator.run_chunk(actions, record=record)
        if fault in ("nan", "constant image"):
            return replace(result, observation=spoil(result.observation, fault))
        self._episode["steps"] += result.duration
        if result.done:
            self._plan.write_down("endings", **self._episode, success=result.success)
        return result

    def frames(self) -> list[np.ndarray]:
        return self._simulator.frames()

    def provenance(self) -> dict[str, Any]:
        return {**self._simulator.provenance(), "faults": list(self._plan.faults)}

    def close(self) -> None:
        self._simulator.close()


def make_faulty(
    factory: Callable[[SimulatorConfig], Simulator], plan: FaultPlan, config: SimulatorConfig
) -> FaultySimulator:
    """A factory when its first two arguments are given."""
    return FaultySimulator(factory(config), plan)


def spoil(observation: Observation, fault: str) -> Observation:
    """An observation that no working simulator sends."""
    if fault == "nan":
        return replace(observation, proprio=np.full_like(observation.proprio, math.nan))
    return replace(observation, images=np.full_like(observation.images, 127))


def strike(fault: str, hoard_bytes: int = 2**33) -> None:
    """What breaks a process of its own accord; does nothing for faults of the observation.

    Raises:
        SimulatorFailure: the fault is "physics".
    """
    if fault == "segmentation fault":
        ctypes.string_at(0)
    elif fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "exit":
        os._exit(3)
    elif fault == "memory":
        hoard = [np.ones(PIECE, np.uint8) for _ in range(hoard_bytes // PIECE)]
        time.sleep(len(hoard) * FOREVER_S)
    elif fault == "hang":
        time.sleep(FOREVER_S)
    elif fault == "hang holding the interpreter":
        ctypes.PyDLL(None).sleep(FOREVER_S)
    elif fault == "physics":
        raise SimulatorFailure("the state diverged")
