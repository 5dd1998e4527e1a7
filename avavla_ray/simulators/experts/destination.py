"""Where a goal wants an object to be put down."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.experts.articulation import Articulation, drawer_of
from avavla_ray.simulators.experts.expert import NoExpert
from avavla_ray.simulators.experts.geometry import SolidPoints
from avavla_ray.simulators.experts.scene import LATTICE, Scene

# An object counts as standing on what lies within this distance of the target's middle, metres.
FOOTPRINT = 0.025
RELEASE_GAP, RIM_GAP = 0.004, 0.012
OVER_SURFACE, OVER_RIM = 0.05, 0.03
# Two objects that share a target stand this share of its half-width from its middle; walls take room for the hand.
SPREAD, SPREAD_WITHIN = 0.6, 0.45
# Room to leave before what is above a drawer; things are let go this far below its rim; metres.
UNDER_EDGE, INTO_DRAWER = 0.01, 0.03


class Destination:
    """A place for an object, read from the scene at every call because objects get pushed about.

    Containers are filled from above their rim; on surfaces an object is set down.
    """

    def __init__(self, scene: Scene, goal: list[str]) -> None:
        """See `destination_of`."""
        predicate, target = goal[0].lower(), goal[-1]
        self._scene = scene
        site = scene.domain.object_sites_dict.get(target)
        self.container = predicate == "in"
        self._site = None if site is None else scene.model.site(target).id
        # A site without a parent is a patch of the table.
        self.on_table = site is not None and site.parent_name is None
        self._body = int(scene.model.site_bodyid[self._site]) if site is not None else scene.body(target)
        self._solid = SolidPoints(scene.model, self._body, spacing=LATTICE)
        self._slot = _slot(scene, goal)
        # Things stand side by side across their longer side; what is dropped into a container turns anyway.
        own = SolidPoints(scene.model, scene.body(goal[1])).world(scene.data)
        self._lengths = np.ones(2) if self.container else np.ptp(own[:, :2], axis=0)
        self._drawer = drawer_of(scene, target) if self.container else None
        if self._drawer is not None:
            self._fixture = SolidPoints(scene.model, scene.body(site.parent_name), spacing=LATTICE)

    def centre(self) -> np.ndarray:
        """(2,) horizontal position for the object's origin, metres."""
        data = self._scene.data
        if self._site is None:
            return data.xpos[self._body][:2].copy()
        if self._drawer is not None:
            return self._uncovered(self._drawer)
        half = self._half()[:2]
        room = half / self._lengths
        widest = int(room[1] >= room[0])
        centre = data.site_xpos[self._site][:2].copy()
        centre[widest] += self._slot * half[widest]
        return centre

    def _uncovered(self, drawer: Articulation) -> np.ndarray:
        """(2,) middle of the part of a drawer that has been pulled out from under everything above it."""
        out = drawer.axis[:2]
        centre = self._scene.data.site_xpos[self._site][:2]
        half = float(self._half()[:2] @ np.abs(out))
        above = self._fixture.world(self._scene.data)
        above = above[above[:, 2] > self._rim()]
        covered = float(((above[:, :2] - centre) @ out).max(initial=-half)) + UNDER_EDGE
        return centre + np.clip((covered + half) / 2, 0, half) * out

    def _half(self) -> np.ndarray:
        """(3,) half extents of the site's box along the world's axes, as LIBERO reckons them, metres."""
        turned = self._scene.data.site_xmat[self._site].reshape(3, 3)
        return np.abs(turned @ self._scene.model.site_size[self._site])

    def _surface(self) -> float:
        data = self._scene.data
        if self.on_table:
            return float(data.site_xpos[self._site][2] + self._scene.model.site_size[self._site][2])
        points = self._solid.world(data)
        near = np.linalg.norm(points[:, :2] - self.centre(), axis=1) < FOOTPRINT
        return float(points[near, 2].max())

    def _rim(self) -> float:
        return float(self._solid.world(self._scene.data)[:, 2].max())

    def release_height(self) -> float:
        """Where the underside of the object should be when the hand opens, metres."""
        if self._drawer is not None:
            return self._rim() - INTO_DRAWER
        return self._rim() + RIM_GAP if self.container else self._surface() + RELEASE_GAP

    def approach_height(self) -> float:
        """Where the underside of the object should be while it is carried there, metres."""
        return self._rim() + OVER_RIM if self.container else self._surface() + OVER_SURFACE


def _slot(scene: Scene, goal: list[str]) -> float:
    """Where along the target the goal's object goes, from -1 to 1, so that all that go there find room."""
    sharing = [other for other in scene.goals if len(other) == 3 and other[2] == goal[2]]
    if goal not in sharing or len(sharing) == 1:
        return 0.0
    spread = SPREAD_WITHIN if goal[0] == "in" else SPREAD
    return float(np.linspace(-spread, spread, len(sharing))[sharing.index(goal)])


def _roofed(scene: Scene, target: str) -> bool:
    """Whether the target is inside a fixture with a part above the middle of it: a shelf or a microwave."""
    site = scene.domain.object_sites_dict.get(target)
    if site is None or site.parent_name not in scene.domain.fixtures_dict:
        return False
    centre = scene.data.site_xpos[scene.model.site(target).id]
    points = SolidPoints(scene.model, scene.body(site.parent_name), spacing=LATTICE).world(scene.data)
    over = points[np.linalg.norm(points[:, :2] - centre[:2], axis=1) < FOOTPRINT]
    return bool((over[:, 2] > centre[2]).any())


def destination_of(scene: Scene, goal: list[str]) -> Destination:
    """The destination of a goal such as ["on", "bowl_1", "plate_1"].

    Raises:
        NoExpert: the goal is not about putting an object on something or into something.
    """
    domain = scene.domain
    if goal[0].lower() == "in" and drawer_of(scene, goal[-1]) is None and _roofed(scene, goal[-1]):
        raise NoExpert(f"no scripted expert for the goal ({' '.join(goal)}): nothing gets there from above")
    known = goal[-1] in domain.object_sites_dict or goal[-1] in domain.obj_body_id
    if len(goal) == 3 and goal[0].lower() in ("on", "in") and goal[1] in domain.objects_dict and known:
        return Destination(scene, goal)
    raise NoExpert(f"no scripted expert for the goal ({' '.join(goal)}): it names nothing to put anywhere")
