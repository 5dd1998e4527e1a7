"""The robot's hand as an expert sees and moves it."""

from __future__ import annotations

from typing import Any

import numpy as np

# One unit of a normalised OSC action, as LIBERO's controller is set up: metres and radians.
POSITION_UNIT, ROTATION_UNIT = 0.05, 0.5
OPEN, CLOSE = -1.0, 1.0
# The last joint goes to 2.9 radians either way.
MOST_TWIST = 2.6
# Above 1 because the controller covers only part of a commanded step within one environment step.
POSITION_GAIN, ROTATION_GAIN = 2.5, 1.0


class Hand:
    """Pose and action of the gripper: z of the grip site points out of the palm, the fingers close along y or so."""

    def __init__(self, model: Any, data: Any) -> None:
        self._data = data
        self._site = model.site("gripper0_grip_site").id
        self._shoulder = model.body("robot0_link2").id
        self._wrist = int(model.joint("robot0_joint7").qposadr[0])
        self._tips = [model.body(f"gripper0_finger_joint{i}_tip").id for i in (1, 2)]

    @property
    def position(self) -> np.ndarray:
        """(3,) grip site, between the fingertips, metres."""
        return self._data.site_xpos[self._site].copy()

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) of the grip site in the world."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def shoulder(self) -> np.ndarray:
        """(3,) second joint of the arm, about which it reaches, metres."""
        return self._data.xpos[self._shoulder].copy()

    @property
    def twist(self) -> float:
        """Angle of the last joint, which turns the hand about the way that it points, radians."""
        return float(self._data.qpos[self._wrist])

    def untwisted(self, turn: float) -> float:
        """`turn` about the vertical of a hand that points down, or half a turn off if the wrist allows no more.

        The fingers are alike, so both hold the same; upwards is against the way that the hand points.
        """
        if abs(self.twist - turn) < MOST_TWIST:
            return turn
        return turn + np.copysign(np.pi, self.twist - turn)

    @property
    def opening(self) -> float:
        """Distance of the fingertips, metres."""
        return float(np.linalg.norm(self._between_tips()))

    @property
    def closing_yaw(self) -> float:
        """Direction in the horizontal plane along which the fingers close, radians."""
        across = self._between_tips()
        return float(np.arctan2(across[1], across[0]))

    def _between_tips(self) -> np.ndarray:
        return self._data.xpos[self._tips[0]] - self._data.xpos[self._tips[1]]

    def pointing_down(self, turn: float) -> np.ndarray:
        """(3, 3) rotation of a hand that points straight down, turned by `turn` radians from where it is now."""
        down = np.array([0.0, 0.0, -1.0])
        x = self.rotation[:, 0].copy()
        x -= (x @ down) * down
        x /= np.linalg.norm(x)
        level = np.stack([x, np.cross(down, x), down], axis=1)
        cos, sin = np.cos(turn), np.sin(turn)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ level

    def rotation_error(self, rotation: np.ndarray) -> np.ndarray:
        """(3,) rotation vector in the world from the present rotation to `rotation`, radians."""
        from scipy.spatial.transform import Rotation

        return Rotation.from_matrix(rotation @ self.rotation.T).as_rotvec()

    def action(self, position: np.ndarray, rotation: np.ndarray, gripper: float, speed: float = 1.0) -> np.ndarray:
        """(7,) float32 in [-1, 1] that moves the hand towards a pose.

        A far position is approached in a straight line: the step is shortened to `speed`, not clipped axis by axis.
        """
        step = (position - self.position) / POSITION_UNIT * POSITION_GAIN
        step *= speed / max(speed, np.abs(step).max())
        turn = np.clip(self.rotation_error(rotation) / ROTATION_UNIT * ROTATION_GAIN, -1, 1)
        return np.concatenate([step, turn, [gripper]]).astype(np.float32)
