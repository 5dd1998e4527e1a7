"""When robosuite looks at the scene, and what we keep of it.

Import this module only after `installation.prepare()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sample:
    """What was seen at one instant.

    Attributes:
        position: (3,) of the hand's site, metres. quaternion: (4,) x, y, z, w of the hand.
        fingers: (2,) finger joints, metres.
        pictures: (2, H, W, 3) uint8 of scene and wrist camera, rows bottom up; overwritten by the next sample.
    """

    position: np.ndarray
    quaternion: np.ndarray
    fingers: np.ndarray
    pictures: np.ndarray


class SamplingClock:
    """The schedule of a robosuite `Observable` without delay, in its own arithmetic.

    robosuite samples at the first physics step after a period has passed, and an observation that is asked for between
    steps moves the clock by one physics step too: rounding and history decide which of the 25 physics steps it is.

    Args:
        period: between samples, seconds.
    """

    def __init__(self, period: float) -> None:
        self._period, self._elapsed, self._sampled = period, 0.0, False

    def restart(self) -> None:
        """Count from zero, as `Observable.reset` does."""
        self._elapsed = 0.0

    def tick(self, timestep: float, force: bool = False) -> bool:
        """Move on by `timestep` seconds; whether to sample now. `force` samples in any case."""
        self._elapsed += timestep
        due = force or (not self._sampled and self._elapsed <= self._period)
        self._sampled |= due
        if self._elapsed >= self._period:
            due |= not self._sampled
            self._elapsed %= self._period
            self._sampled = False
        return due
