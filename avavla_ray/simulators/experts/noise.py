"""Disturbances of an expert's motion, so that demonstrations show how to come back from where a clone will err.

As in DART (Laskey et al., arXiv 1703.09327): what is executed is disturbed, what is recorded is not. Successive
disturbances resemble each other, since white noise averages out within a few environment steps and leads nowhere new.
"""

from __future__ import annotations

import numpy as np

from avavla_ray.errors import InputError

# Of the deviation, by motion dimension: turns stay off by as much as they are disturbed, and grasps are lost then.
SHARES = (1.0, 1.0, 1.0, 0.25, 0.25, 0.25)
CORRELATION_STEPS = 8.0  # environment steps after which a disturbance has decayed to 1/e: about a chunk


class MotionNoise:
    """A stationary first-order autoregressive process, one value a motion dimension.

    Args:
        deviation: standard deviation of translations in action units, of turns a quarter of it; 0 disturbs nothing.
        width: motion dimensions, the action's first.

    Raises:
        InputError: the deviation is negative.
    """

    def __init__(self, deviation: float, width: int, *, seed: int) -> None:
        if not deviation >= 0:
            raise InputError(f"expert noise {deviation} is negative: give 0 or more")
        self._random, self._deviation = np.random.default_rng(seed), deviation * np.array(SHARES)[:width]
        self._keep = np.exp(-1.0 / CORRELATION_STEPS)
        self._state = self._deviation * self._random.standard_normal(width)

    def disturbed(self, action: np.ndarray, *, still: bool = False) -> np.ndarray:
        """What is executed instead of `action` (A,), float32 in [-1, 1].

        Args:
            still: this step would be spoiled by a disturbance; the process goes on.
        """
        step = np.sqrt(1.0 - self._keep**2) * self._deviation
        self._state = self._keep * self._state + step * self._random.standard_normal(len(self._state))
        executed = np.array(action, np.float32)
        if not still:
            executed[: len(self._state)] += self._state.astype(np.float32)
        return np.clip(executed, -1.0, 1.0)
