"""Where solid things are: points of collision geoms in the world."""

from __future__ import annotations

from typing import Any

import numpy as np


def subtree(model: Any, root: int) -> set[int]:
    """Ids of the body `root` and of every body that hangs on it."""
    bodies = {root}
    # MuJoCo numbers parents before their children.
    for body in range(root + 1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return bodies


class SolidPoints:
    """Points of a body's collision geoms, parts and children included.

    A geom counts as its bounding box in its own frame: exact for boxes, of which LIBERO's objects are made, and
    slightly too large for anything round.
    """

    def __init__(self, model: Any, root: int, spacing: float | None = None) -> None:
        """Take the corners, or with `spacing` (metres) a lattice at most that wide through the boxes."""
        bodies = subtree(model, root)
        owners, local = [], []
        for geom in range(model.ngeom):
            # Either mask lets a geom be touched by others.
            solid = model.geom_contype[geom] or model.geom_conaffinity[geom]
            if int(model.geom_bodyid[geom]) not in bodies or not solid:
                continue
            centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
            counts = [2 if spacing is None else max(2, int(np.ceil(2 * extent / spacing)) + 1) for extent in half]
            axes = [np.linspace(-extent, extent, n) for extent, n in zip(half, counts, strict=True)]
            points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) + centre
            local.append(points)
            owners.append(np.full(len(points), geom))
        self._local = np.concatenate(local) if local else np.zeros((0, 3))
        self._owner = np.concatenate(owners) if owners else np.zeros(0, int)

    def world(self, data: Any) -> np.ndarray:
        """(N, 3) points in the world, metres."""
        frames = data.geom_xmat[self._owner].reshape(-1, 3, 3)
        return np.einsum("nij,nj->ni", frames, self._local) + data.geom_xpos[self._owner]
