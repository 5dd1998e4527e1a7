"""What the policy sees of CALVIN: the same from the simulator, with the reference renderer, and from the data set."""

from __future__ import annotations

import numpy as np
from PIL import Image

CAMERAS = ("static", "gripper")
PROPRIOCEPTION = "position 3 (m), Euler angles 3 (rad, the first in [0, 2 pi)), finger opening (m), gripper command"


def proprioception(robot_obs: np.ndarray) -> np.ndarray:
    """(8,) float32 of robot_obs (15,): hand position 3, Euler angles 3, finger opening, gripper command.

    The angle about x is in [0, 2 pi): CALVIN's is in (-pi, pi], and a hand that points down is at its ends, where the
    sign jumps from step to step.
    """
    values = np.concatenate([robot_obs[:7], robot_obs[-1:]])
    values[3] %= 2 * np.pi
    return values.astype(np.float32)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) uint8 of a picture (H, W, 3), bilinear with antialiasing; as it is where it has the size."""
    if picture.shape[:2] == (size, size):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))
