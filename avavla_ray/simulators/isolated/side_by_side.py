"""Several simulators of one owner, begun together where they are isolated and else one after the other.

Call the first function for each of them, then the second for each of them with the same arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from avavla_ray.simulators.base import ChunkResult, Observation, Simulator
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator


def begin_reset(simulator: Simulator, task: int, seed: int) -> None:
    """Let an isolated simulator begin to reset."""
    if isinstance(simulator, IsolatedSimulator):
        simulator.begin_reset(task, seed=seed)


def finish_reset(simulator: Simulator, task: int, seed: int) -> Observation:
    """What the reset shows; raises what it raises."""
    if isinstance(simulator, IsolatedSimulator):
        return simulator.finish_reset()
    return simulator.reset(task, seed=seed)


def begin_chunk(simulator: Simulator, actions: np.ndarray) -> None:
    """Let an isolated simulator begin to execute (C, A) actions."""
    if isinstance(simulator, IsolatedSimulator):
        simulator.begin_chunk(actions)


def finish_chunk(simulator: Simulator, actions: np.ndarray) -> ChunkResult:
    """What came of the actions; raises what the chunk raises."""
    if isinstance(simulator, IsolatedSimulator):
        return simulator.finish_chunk()
    return simulator.run_chunk(actions)


def is_stuck(simulator: Simulator) -> bool:
    """Whether it has hung, so that `finish_*` would say so at once; to be asked about every second."""
    process = simulator._process if isinstance(simulator, IsolatedSimulator) else None
    return process is not None and process.stuck


def wait_for(simulators: Iterable[Simulator], also: int | None, seconds: float) -> set[int]:
    """Wait until one of these has an answer, or a file descriptor can be read, at most so long.

    Returns:
        the ids (`id`) of those whose `finish_*` would not have to wait; one that is not isolated never does.
    """
    ready, lines = set[int](), dict[Connection, IsolatedSimulator]()
    for simulator in simulators:
        if isinstance(simulator, IsolatedSimulator) and simulator._process is not None:
            lines[simulator._process.line] = simulator
        else:
            ready.add(id(simulator))
    waited_for: list[Any] = [*lines, *([] if also is None else [also])]
    if waited_for:
        found = wait(waited_for, 0 if ready else seconds)
        # A new process says first that it is there, which is no answer to what it is to do.
        ready |= {id(lines[line]) for line in found if line in lines and not lines[line].hear()}
    return ready
