"""Where a goal wants an object to be put down."""

from __future__ import annotations

from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.experts.geometry import SolidPoints

# An object counts as standing on what lies within this distance of the target's middle, metres.
FOOTPRINT = 0.025
RELEASE_GAP, RIM_GAP = 0.004, 0.012
OVER_SURFACE, OVER_RIM = 0.05, 0.03
LATTICE = 0.008


class Destination:
    """A place for an object, read from the scene at every call because objects get pushed about.

    Containers are filled from above their rim; on surfaces an object is set down.
    """

    def __init__(self, domain: Any, model: Any, data: Any, predicate: str, target: str) -> None:
        """See `destination_of`."""
        self._data = data
        sites = domain.object_sites_dict
        self.container = predicate == "in"
        self._site = model.site(target).id if target in sites else None
        owner = sites[target].parent_name if target in sites else target
        self._body = int(domain.obj_body_id[owner])
        self._solid = SolidPoints(model, self._body, spacing=LATTICE)

    def centre(self) -> np.ndarray:
        """(2,) horizontal position for the object's origin, metres."""
        place = self._data.xpos[self._body] if self._site is None else self._data.site_xpos[self._site]
        return place[:2].copy()

    def _surface(self) -> float:
        if self._site is not None:
            return float(self._data.site_xpos[self._site][2])
        points = self._solid.world(self._data)
        near = np.linalg.norm(points[:, :2] - self.centre(), axis=1) < FOOTPRINT
        return float(points[near, 2].max())

    def release_height(self) -> float:
        """Where the underside of the object should be when the hand opens, metres."""
        if self.container:
            return float(self._solid.world(self._data)[:, 2].max()) + RIM_GAP
        return self._surface() + RELEASE_GAP

    def approach_height(self) -> float:
        """Where the underside of the object should be while it is carried there, metres."""
        if self.container:
            return float(self._solid.world(self._data)[:, 2].max()) + OVER_RIM
        return self._surface() + OVER_SURFACE


def destination_of(domain: Any, model: Any, data: Any, goal: list[str]) -> Destination:
    """The destination of a goal such as ["on", "bowl_1", "plate_1"] of LIBERO's problem `domain`.

    Raises:
        InputError: the goal is not about putting an object on something or into an open container.
    """
    predicate = goal[0].lower()
    sites = domain.object_sites_dict
    target = goal[-1]
    movable = target not in sites or sites[target].parent_name in domain.objects_dict
    known = target in sites or target in domain.obj_body_id
    if len(goal) == 3 and goal[1] in domain.objects_dict and known:
        if predicate == "on" and not (target in sites and sites[target].parent_name is None):
            return Destination(domain, model, data, predicate, target)
        if predicate == "in" and target in sites and movable:
            return Destination(domain, model, data, predicate, target)
    raise InputError(f"no scripted expert for the goal ({' '.join(goal)}): it puts things on things and into baskets")
