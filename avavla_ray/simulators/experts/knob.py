"""Turning a knob by its ridge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avavla_ray.simulators.experts.articulation import Articulation
from avavla_ray.simulators.experts.grasp import plan_grasp
from avavla_ray.simulators.experts.hand import CLOSE, OPEN
from avavla_ray.simulators.experts.path import Path, Waypoint
from avavla_ray.simulators.experts.scene import Scene

# The ridge stands out from its disc by at most this, metres.
RIDGE_DEPTH = 0.02
OVERHEAD = 0.08
# How far the hand turns with one hold, in so many steps of the route; radians.
TURN, STAGES = 1.2, 4


class TurnKnob(Path):
    """Takes the ridge of a knob from above and turns the hand about the knob's axis, as often as it takes."""

    def __init__(self, scene: Scene, knob: Articulation, on: bool) -> None:
        """With `on` it turns towards on, else towards off."""
        self._scene, self._knob, self._on = scene, knob, on
        super().__init__(scene.hand, self._go)

    def _go(self) -> Iterator[Waypoint]:
        hand, points = self._scene.hand, self._knob.points()
        ridge = points[points[:, 2] > points[:, 2].max() - RIDGE_DEPTH]
        grasp = plan_grasp(ridge, np.zeros((0, 3)), hand.closing_yaw, hand.shoulder)
        rotation = hand.pointing_down(hand.untwisted(grasp.turn))
        above = grasp.position + np.array([0, 0, OVERHEAD])
        yield Waypoint("reach", above, rotation, OPEN, 60, near=0.006, straight=0.05)
        yield Waypoint("descend", grasp.position, rotation, OPEN, 30, near=0.008)
        yield Waypoint("grip", grasp.position, rotation, CLOSE, 10, least=10, delicate=True)
        axis = self._knob.axis if self._on else -self._knob.axis
        for stage in range(1, STAGES + 1):
            turned = _rotation(axis, TURN * stage / STAGES)
            place = self._knob.anchor + turned @ (grasp.position - self._knob.anchor)
            yield Waypoint("turn", place, turned @ rotation, CLOSE, 10)
        still, turned = hand.position, hand.rotation
        yield Waypoint("release", still, turned, OPEN, 8, least=8, delicate=True)
        yield Waypoint("retreat", still + np.array([0, 0, OVERHEAD]), turned, OPEN, 15, near=0.03)


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(axis * angle).as_matrix()
