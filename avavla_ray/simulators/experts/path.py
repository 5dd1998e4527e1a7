"""Following a list of poses: what every skill that is not about carrying things consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from avavla_ray.simulators.experts.hand import Hand
from avavla_ray.simulators.experts.scene import Motion


@dataclass(frozen=True)
class Waypoint:
    """A pose to go to, and when to go on to the next.

    Attributes:
        name: of the phase. position: (3,) of the grip site, metres. rotation: (3, 3).
        limit: environment steps after which to go on in any case. least: before which not to.
        near, straight: how close counts as there; metres, radians.
    """

    name: str
    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    limit: int = 40
    least: int = 1
    near: float = 0.012
    straight: float = 0.1
    delicate: bool = False


class Path:
    """A skill that goes through waypoints; `route` yields each when the one before has been reached or given up."""

    def __init__(self, hand: Hand, route: Callable[[], Iterator[Waypoint]]) -> None:
        self._hand, self._route = hand, route()
        self._steps = 0
        self._target = next(self._route)
        self.finished = False

    @property
    def phase_name(self) -> str:
        return self._target.name

    def step(self) -> Motion:
        """See `Skill.step`."""
        target = self._target
        self._steps += 1
        motion = Motion(target.position, target.rotation, target.gripper, target.delicate)
        away = np.linalg.norm(target.position - self._hand.position)
        askew = np.linalg.norm(self._hand.rotation_error(target.rotation))
        there = away < target.near and askew < target.straight and self._steps >= target.least
        if there or self._steps >= target.limit:
            following = next(self._route, None)
            if following is None:
                self.finished = True
            else:
                self._target, self._steps = following, 0
        return motion
