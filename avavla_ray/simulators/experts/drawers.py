"""Pulling drawers open by their handles, and pushing them shut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avavla_ray.simulators.experts.articulation import Articulation
from avavla_ray.simulators.experts.expert import NoExpert
from avavla_ray.simulators.experts.hand import CLOSE, OPEN
from avavla_ray.simulators.experts.hand_poses import facing, leaning
from avavla_ray.simulators.experts.path import Path, Waypoint
from avavla_ray.simulators.experts.scene import Scene

# A bar handle stands out from its drawer by about this much, metres.
HANDLE_DEPTH = 0.018
# The hand stays this high while it goes to stand in front of a drawer, this far from the handle; metres.
OVERHEAD, IN_FRONT = 0.20, 0.09
# To push it is enough to stand closer: the arm behind a leaning hand takes room, too.
CLOSE_BY = 0.045
PULL, BEYOND_SHUT = 0.19, 0.03
# Enough to put things in; further out it would only be in the way of taking them.
PULL_TO_FILL = 0.13
# The least height of a handle above the table at which half a level hand fits under it, metres.
LOWEST_HANDLE = 0.09
# Radians from straight down: level to take a handle between its neighbours, aslant to push with the fingertips.
LEVEL, ASLANT = np.pi / 2, np.pi / 6


class OpenDrawer(Path):
    """Takes the handle from the front with a level hand and pulls."""

    def __init__(self, scene: Scene, drawer: Articulation, pull: float = PULL) -> None:
        """Plan to pull it open by `pull` metres.

        Raises:
            NoExpert: the handle is so low that the table is in the hand's way.
        """
        self._scene, self._drawer, self._pull = scene, drawer, pull
        if drawer.protrusion(HANDLE_DEPTH)[2] - drawer.standing_on() < LOWEST_HANDLE:
            raise NoExpert(f"no scripted expert to open {drawer.name}: its handle is too low for a level hand")
        super().__init__(scene.hand, self._go)

    def _go(self) -> Iterator[Waypoint]:
        out, handle = self._drawer.axis, self._drawer.protrusion(HANDLE_DEPTH)
        rotation = facing(self._scene.hand, leaning(-out, LEVEL), np.array([0.0, 0.0, 1.0]))
        front = handle + IN_FRONT * out
        above = np.array([*front[:2], handle[2] + OVERHEAD])
        yield Waypoint("raise", above, rotation, OPEN, 60, near=0.04, straight=0.2)
        yield Waypoint("approach", front, rotation, OPEN, 40)
        yield Waypoint("reach", handle, rotation, OPEN, 30, near=0.006)
        yield Waypoint("grip", handle, rotation, CLOSE, 10, least=10, delicate=True)
        yield Waypoint("pull", handle + self._pull * out, rotation, CLOSE, 60)
        yield Waypoint("release", self._scene.hand.position, rotation, OPEN, 8, least=8, delicate=True)
        away = self._scene.hand.position + IN_FRONT * out
        yield Waypoint("retreat", away, rotation, OPEN, 15, near=0.03)
        yield Waypoint("rise", away + np.array([0, 0, OVERHEAD]), rotation, OPEN, 25, near=0.04)


class ShutDrawer(Path):
    """Pushes the handle back with closed fingers."""

    def __init__(self, scene: Scene, drawer: Articulation) -> None:
        self._scene, self._drawer = scene, drawer
        super().__init__(scene.hand, self._go)

    def _go(self) -> Iterator[Waypoint]:
        out, handle = self._drawer.axis, self._drawer.protrusion(HANDLE_DEPTH)
        along = np.cross(out, [0.0, 0.0, 1.0])
        rotation = facing(self._scene.hand, leaning(-out, ASLANT), along)
        front = handle + CLOSE_BY * out
        above = np.array([*front[:2], handle[2] + OVERHEAD])
        yield Waypoint("raise", above, rotation, CLOSE, 60, near=0.04, straight=0.2)
        yield Waypoint("approach", front, rotation, CLOSE, 40)
        shut = handle - (self._drawer.travel + BEYOND_SHUT) * out
        yield Waypoint("push", shut, rotation, CLOSE, 60)
        # Back the way that the fingers point: straight out, they would take the handle along.
        back = self._scene.hand.position - IN_FRONT * rotation[:, 2]
        yield Waypoint("retreat", back, rotation, CLOSE, 15, near=0.03)
