"""How an episode and a chunk begin in any simulator: refusals in one line, starts from seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig, SuiteSpec

# First number of the seeds of the two kinds of start, so that none of one kind is ever one of the other.
_PUBLISHED, _DRAWN = 0, 1


def check_start(spec: SuiteSpec, config: SimulatorConfig, task: int, initial_state: int | None) -> None:
    """Refuse an episode that does not exist.

    Raises:
        InputError: no such task in the suite or among the tasks of `config`, or no such initial state.
    """
    count, states = len(spec.instructions), spec.num_initial_states
    if not 0 <= task < count:
        raise InputError(f"task {task} does not exist: {config.suite} has tasks 0 to {count - 1}")
    if config.tasks and task not in config.tasks:
        raise InputError(f"task {task} is not among the tasks {config.tasks} of this simulator")
    if initial_state is not None and not 0 <= initial_state < states:
        raise InputError(
            f"initial state {initial_state} does not exist: {config.suite} has 0 to {states - 1} for each task"
        )


def checked_actions(spec: SuiteSpec, actions: Any) -> np.ndarray:
    """(C, A) float32, as given.

    Raises:
        InputError: actions of another shape or not finite.
    """
    actions = np.asarray(actions, np.float32)
    if actions.ndim != 2 or actions.shape[1] != spec.action_dim or not len(actions):
        raise InputError(f"actions of shape {actions.shape}: give (C, {spec.action_dim}) with C of at least 1")
    if not np.isfinite(actions).all():
        raise InputError("actions hold a value that is not finite: check what made them")
    return actions


def start_random(initial_state: int | None, seed: int) -> np.random.Generator:
    """Randomness for a simulator that draws its published initial states too: no drawn start is ever one of them."""
    return np.random.default_rng([_DRAWN, seed] if initial_state is None else [_PUBLISHED, initial_state])
