"""The running table-top: blocks placed, the gripper commanded, and what became of them. Needs MuJoCo."""

from __future__ import annotations

import mujoco
import numpy as np

from avavla_ray.simulators.mujoco_physics import advance
from avavla_ray.simulators.tabletop.scene import (
    BLOCK_HALF,
    FINGER_OPEN,
    FINGERS,
    HIGH,
    LAMP_RGBA,
    LOW,
    RAILS,
    SUBSTEPS,
    scene_xml,
)
from avavla_ray.simulators.tabletop.tasks import COLOURS

# How far from where the gripper is one unit of a normalised action commands its x, y, z and yaw to; metres and radians.
UNIT = np.array([0.01, 0.01, 0.01, 0.1])
MOVED_BY = (0, 1, 2, 5)  # action dimensions of x, y, z and yaw; 3 and 4, roll and pitch, have no rail
GRIPPER = 6
# Commanded place of each finger at the two ends of the gripper's action: a closed one presses, with 9 N on a block.
OPEN_AT, CLOSED_AT = FINGER_OPEN, -0.01


class World:
    """One table. Everything that moves is a function of where it was placed and of the actions since."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(scene_xml())
        self.data = mujoco.MjData(self.model)
        joints = [self.model.joint(name) for name in (*RAILS, *FINGERS)]
        self._places = np.array([joint.qposadr[0] for joint in joints])
        self._block_places = {name: int(self.model.joint(name).qposadr[0]) for name in COLOURS}
        self._geoms = {name: self.model.geom(name).id for name in (*COLOURS, *FINGERS)}
        self._lamp = self.model.geom("lamp").id

    def place(self, blocks: np.ndarray, gripper: np.ndarray) -> None:
        """Start anew, at rest.

        Args:
            blocks: (3, 3) x, y and yaw in the order of COLOURS. gripper: (4,) x, y, z and yaw; the fingers are open.
        """
        mujoco.mj_resetData(self.model, self.data)
        for colour, (x, y, yaw) in zip(COLOURS, blocks, strict=True):
            at = self._block_places[colour]
            self.data.qpos[at : at + 7] = x, y, BLOCK_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
        self.data.qpos[self._places] = *gripper, FINGER_OPEN, FINGER_OPEN
        self.data.ctrl[:] = *gripper, OPEN_AT, OPEN_AT
        mujoco.mj_forward(self.model, self.data)

    def light(self, colour: str) -> None:
        """Light the lamp in a block's colour, or make it "dark"."""
        self.model.geom_rgba[self._lamp] = (*LAMP_RGBA[colour], 1.0)

    def step(self, action: np.ndarray | None) -> None:
        """One environment step.

        Args:
            action: (7,), clipped to [-1, 1]; None keeps the commands of the step before.

        Raises:
            SimulatorFailure: the physics diverged or MuJoCo gave up.
        """
        if action is not None:
            action = np.clip(action, -1.0, 1.0)
            rails = np.clip(self.gripper + UNIT * action[list(MOVED_BY)], LOW, HIGH)
            fingers = OPEN_AT + (CLOSED_AT - OPEN_AT) * (action[GRIPPER] + 1) / 2
            self.data.ctrl[:] = *rails, fingers, fingers
        advance(self.model, self.data, SUBSTEPS)

    @property
    def gripper(self) -> np.ndarray:
        """(4,) x, y, z of the point between the fingertips, metres, and yaw, radians."""
        return self.data.qpos[self._places[:4]].copy()

    @property
    def fingers(self) -> np.ndarray:
        """(2,) how far each finger is from the middle, metres."""
        return self.data.qpos[self._places[4:]].copy()

    def block(self, colour: str) -> np.ndarray:
        """(3,) centre of a block, metres."""
        at = self._block_places[colour]
        return self.data.qpos[at : at + 3].copy()

    def block_yaw(self, colour: str) -> float:
        """Turn of a block about the vertical in [-pi/4, pi/4), radians: a cube looks the same every quarter turn."""
        at = self._block_places[colour]
        w, x, y, z = self.data.qpos[at + 3 : at + 7]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def block_speed(self, colour: str) -> float:
        """Of a block's centre, metres a second."""
        at = int(self.model.joint(colour).dofadr[0])
        return float(np.linalg.norm(self.data.qvel[at : at + 3]))

    def touching(self, first: str, second: str) -> bool:
        """Whether two blocks, or a block and a finger, are in contact."""
        pairs = self.data.contact.geom
        a, b = self._geoms[first], self._geoms[second]
        return bool(((pairs == (a, b)).all(1) | (pairs == (b, a)).all(1)).any())
