"""Several simulators of one owner, begun together where they are isolated and else one after the other.

Call the first function for each of them, then the second for each of them with the same arguments.
"""

from __future__ import annotations

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
