"""Doors, drawers and knobs: the one joint that a goal is about."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.experts.expert import NoExpert
from avavla_ray.simulators.experts.geometry import SolidPoints
from avavla_ray.simulators.experts.scene import LATTICE, Scene


class Articulation:
    """A hinge or a slide of a fixture, seen in the world.

    Attributes:
        name: of the fixture or of its region.
        slides: it is a slide, not a hinge.
        opening: sign of the joint's motion that opens it or turns it on.
        body: id of what moves.
    """

    def __init__(self, scene: Scene, name: str) -> None:
        """Find the joint of the fixture or of the region `name`.

        Raises:
            NoExpert: it has none, or more than one.
        """
        domain = scene.domain
        site = domain.object_sites_dict.get(name)
        owner = domain.get_object(name if site is None else site.parent_name)
        joints = list((owner if site is None else site).joints or ())
        ranges = owner.object_properties.get("articulation")
        if len(joints) != 1 or ranges is None:
            raise NoExpert(f"no scripted expert for {name}: it is no drawer, door or knob with a joint of its own")
        self._scene, self.name = scene, name
        self._owner = scene.body(owner.name)
        self._joint = scene.model.joint(joints[0]).id
        self._address = int(scene.model.jnt_qposadr[self._joint])
        # MuJoCo's enumeration: 2 is a slide, 3 a hinge.
        self.slides = int(scene.model.jnt_type[self._joint]) == 2
        self.body = int(scene.model.jnt_bodyid[self._joint])
        opened = ranges.get("default_turnon_ranges") or ranges["default_open_ranges"]
        closed = ranges.get("default_turnoff_ranges") or ranges["default_close_ranges"]
        self.opening = float(np.sign(np.mean(opened) - np.mean(closed)))
        self._opened, self._closed = float(np.mean(opened)), float(np.mean(closed))
        self.solid = SolidPoints(scene.model, self.body, spacing=LATTICE)

    @property
    def position(self) -> float:
        """Of the joint; metres or radians."""
        return float(self._scene.data.qpos[self._address])

    @property
    def openness(self) -> float:
        """0 closed, 1 as far open as counts as open."""
        return (self.position - self._closed) / (self._opened - self._closed)

    @property
    def travel(self) -> float:
        """How far it is from closed; metres or radians."""
        return self.opening * (self.position - self._closed)

    @property
    def axis(self) -> np.ndarray:
        """(3,) unit vector of the joint in the world, along which, or about which, it opens."""
        return self.opening * self._scene.data.xaxis[self._joint]

    @property
    def anchor(self) -> np.ndarray:
        """(3,) a point that the joint's axis passes through, metres."""
        return self._scene.data.xanchor[self._joint].copy()

    def points(self) -> np.ndarray:
        """(N, 3) solid points of what moves, metres."""
        return self.solid.world(self._scene.data)

    def standing_on(self) -> float:
        """Height of the underside of the whole fixture, metres."""
        return float(SolidPoints(self._scene.model, self._owner).world(self._scene.data)[:, 2].min())

    def protrusion(self, depth: float) -> np.ndarray:
        """(3,) centre of the foremost `depth` metres in the opening direction: a drawer's handle."""
        points = self.points()
        ahead = points @ self.axis
        front = points[ahead > ahead.max() - depth]
        return (front.max(0) + front.min(0)) / 2


def drawer_of(scene: Scene, region: str) -> Articulation | None:
    """The drawer that a region is the inside of, None for any other region."""
    site = scene.domain.object_sites_dict.get(region)
    if site is None or not site.joints:
        return None
    joint = Articulation(scene, region)
    return joint if joint.slides else None
