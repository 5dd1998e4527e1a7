"""Experts by simulator: something that acts well enough to demonstrate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from avavla_ray.errors import InputError

if TYPE_CHECKING:
    from avavla_ray.simulators.libero.adapter import LiberoSimulator


class Expert(Protocol):
    """Acts one environment step at a time, with access to the true state of its simulator."""

    def act(self) -> np.ndarray:
        """(7,) float32 action in [-1, 1], in the environment's own convention."""
        ...


def make_expert(simulator: LiberoSimulator, *, seed: int = 0, noise: float = 0.0) -> Expert:
    """An expert for the episode that `simulator` has just been reset to.

    Args:
        seed: of the noise. noise: standard deviation of the noise on the motion, in action units.

    Raises:
        InputError: the simulator has not been reset, or its task has no expert.
    """
    if simulator.task is None:
        raise InputError("the simulator has no task yet: reset it before making an expert")
    from avavla_ray.simulators.experts.pick_place import PickPlaceExpert

    return PickPlaceExpert(simulator, seed=seed, noise=noise)
