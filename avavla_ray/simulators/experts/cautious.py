"""A slow teacher: what a clone of it lacks is not in its demonstrations, and reinforcement learning can find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.errors import InputError

if TYPE_CHECKING:
    from avavla_ray.simulators.experts.expert import Expert


def check_speed(speed: float) -> None:
    """Raise InputError unless `speed` is in (0, 1]."""
    if not 0 < speed <= 1:
        raise InputError(f"expert speed {speed}: give a share of its own speed, more than 0 and at most 1")


class Cautious:
    """An expert whose hand moves at a share of the speed; turns and gripper are as they were.

    Args:
        speed: that share.

    Raises:
        InputError: `speed` is not in (0, 1].
    """

    def __init__(self, expert: Expert, speed: float) -> None:
        check_speed(speed)
        self._expert, self._speed = expert, speed

    @property
    def phase_name(self) -> str:
        return self._expert.phase_name

    def act(self) -> np.ndarray:
        """See `Expert`."""
        executed = self._slowed(self._expert.act())
        self.intended = self._slowed(self._expert.intended)
        return executed

    def _slowed(self, action: np.ndarray) -> np.ndarray:
        slowed = np.array(action, np.float32)
        slowed[:3] *= self._speed
        return slowed
