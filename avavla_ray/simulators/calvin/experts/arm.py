"""The robot's arm as an expert moves it: generators that yield one action for each environment step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

# One unit of a normalised action, as CALVIN's controller is set up: metres and radians.
POSITION_UNIT, ROTATION_UNIT = 0.02, 0.05
OPEN, CLOSE = 1.0, -1.0
# Pose in which the hand points down and the fingers close along the world's x axis: Euler angles, radians.
HOME_YAW = np.pi / 2
# Share of what is left of the way that one step adds to the commanded pose. The arm follows within a step or so: with
# more it would overshoot.
GAIN = 0.3
# How far the command may run ahead of an arm that is blocked or stretched out; metres.
LEAD = 0.04
# How far the hand may be from what it should be turned to; radians.
TURN_REACHED = 0.05
# An arm that moves no further than this in a step stands still; metres, radians.
STILL, STILL_TURN = 5e-4, 5e-3
# This near its goal a motion is disturbed for a few steps only: a disturbance is about as large there as what is left,
# and the hand would hover until one happens to bring it home. Without any, a clone that arrives a centimetre beside has
# never seen how to come back; metres, steps.
NEAR, MISSES = 0.05, 6
# A cone over a narrow place: its height by its radius, and how far beside the axis counts as on it, metres.
CONE, STRAIGHT = 4.0, 0.005
# Speeds in action units: through free space, towards something, and pushing.
FAST, CAREFUL, PUSHING = 0.7, 0.5, 0.35

Motion = Iterator[np.ndarray]


def pointing_down(turn: float = 0.0, tip: float = 0.0) -> np.ndarray:
    """(3,) Euler angles of a hand that points down, turned about the vertical, then tipped about the world's x axis.

    A positive `tip` leans the palm out of the cabinet and points the fingers into it; radians.
    """
    sin, cos = np.sin(HOME_YAW + turn), np.cos(HOME_YAW + turn)
    turned = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
    sin, cos = np.sin(tip), np.cos(tip)
    return euler_of(np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]) @ turned)


def euler_of(rotation: np.ndarray) -> np.ndarray:
    """(3,) Euler angles about the world's x, y and z axis, in this order, of a (3, 3) rotation; radians."""
    (r00, _, _), (r10, _, _), (r20, r21, r22) = rotation
    return np.array([np.arctan2(r21, r22), -np.arcsin(np.clip(r20, -1, 1)), np.arctan2(r10, r00)])


def levelled(hand: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(3,) Euler angles of the hand that bring what it holds level, by the smallest rotation.

    Args:
        hand, held: (3, 3) rotations of the hand and of the block in it.
    """
    axis = held[:, int(np.abs(held[2]).argmax())]
    axis = axis * np.sign(axis[2])
    # Rodrigues' formula for the rotation that takes the axis to the vertical.
    cross = np.cross(axis, [0.0, 0.0, 1.0])
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return euler_of((np.eye(3) + skew + skew @ skew / (1 + axis[2])) @ hand)


def out_of_palm(tip: float) -> np.ndarray:
    """(3,) unit vector from the fingertips to the palm of such a hand: the way it comes from."""
    return np.array([0.0, -np.sin(tip), np.cos(tip)])


def shifted(point: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """(3,) a `point` (3,) moved along the world's axes, metres."""
    return point + np.array([x, y, z])


def wrapped(angle: np.ndarray) -> np.ndarray:
    """The same angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _step(left: np.ndarray, fastest: float) -> np.ndarray:
    """(3,) of what is `left` (3,), in action units: slower where it ends, and at most `fastest` in any of the three."""
    return left * min(GAIN, fastest / max(float(np.abs(left).max()), 1e-9))


class Arm:
    """Turns poses into actions.

    CALVIN adds every action to a commanded pose that the arm follows with some lag. Pictures and proprioception show
    the arm, not the command, so actions follow from where the arm is: who clones them sees what decided them. Only how
    hard a blocked arm still presses follows from the command.

    Attributes:
        phase: what the arm is doing, in a word.
        moving: whether the motion may be disturbed; not while the fingers open or close, nor when it should arrive.
        gripper: OPEN or CLOSE.
    """

    def __init__(self, env: Any) -> None:
        """Move the robot of `env`, a `PlayTableSimEnv`."""
        self._env, self._robot = env, env.robot
        self.phase, self.moving = "start", False
        self.gripper = CLOSE if float(np.squeeze(env.robot.gripper_action)) < 0 else OPEN

    @property
    def tip(self) -> np.ndarray:
        """(3,) between the fingertips, metres."""
        return np.array(self._pose()[0])

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) of the hand in the world."""
        return np.array(self._env.p.getMatrixFromQuaternion(self._pose()[1])).reshape(3, 3)

    def _pose(self) -> tuple[Any, Any]:
        robot = self._robot
        state = self._env.p.getLinkState(robot.robot_uid, robot.tcp_link_id, physicsClientId=self._env.cid)
        return state[0], state[1]

    @property
    def commanded(self) -> np.ndarray:
        """(3,) where the tip is to be, metres."""
        return np.array(self._robot.target_pos, float)

    @property
    def commanded_turn(self) -> np.ndarray:
        """(3,) Euler angles that the hand is to have, radians."""
        return np.array(self._robot.target_orn, float)

    def action(self, position: np.ndarray | None, euler: np.ndarray | None, speed: float) -> np.ndarray:
        """(7,) float32 in [-1, 1] towards a pose, in a straight line; None keeps what is commanded."""
        action = np.zeros(7, np.float32)
        if position is not None:
            step = _step((position - self.tip) / POSITION_UNIT, speed)
            ahead = self.commanded - self.tip
            back, forth = np.minimum(0.0, -LEAD - ahead), np.maximum(0.0, LEAD - ahead)
            action[:3] = np.clip(step, back / POSITION_UNIT, forth / POSITION_UNIT)
        if euler is not None:
            action[3:6] = _step(wrapped(euler - euler_of(self.rotation)) / ROTATION_UNIT, 1.0)
        action[6] = self.gripper
        return action

    def go(
        self,
        phase: str,
        position: np.ndarray,
        euler: np.ndarray | None = None,
        *,
        speed: float = FAST,
        tolerance: float = 0.006,
        limit: int = 80,
        settle: int = 3,
        delicate: bool = False,
        out: np.ndarray | None = None,
    ) -> Motion:
        """Bring the tip to `position` (3,) and the hand to `euler` (3,).

        Args:
            tolerance: distance of the tip that is close enough, metres.
            limit: steps after which to give up.
            settle: steps that an arm may stand still, which is blocked then.
            delicate: a disturbance would spoil it.
            out: (3,) unit vector out of a place that is narrow: the tip goes in no deeper than its cone lets it, which
                widens along this vector.
        """
        self.phase = phase
        still, near, tip, turn = 0, 0, self.tip, euler_of(self.rotation)
        for _ in range(limit):
            near += bool(np.linalg.norm(position - tip) < NEAR)
            self.moving = not delicate and near <= MISSES
            yield self.action(position if out is None else self._above(position, out), euler, speed)
            before, turned = tip, turn
            tip, turn = self.tip, euler_of(self.rotation)
            there = np.linalg.norm(position - tip) < tolerance
            if there and (euler is None or np.abs(wrapped(euler - turn)).max() < TURN_REACHED):
                return
            moved = np.linalg.norm(tip - before) > STILL or np.abs(wrapped(turn - turned)).max() > STILL_TURN
            still = 0 if moved else still + 1
            if still > settle:
                return

    def _above(self, place: np.ndarray, out: np.ndarray) -> np.ndarray:
        """(3,) the deepest point on the axis of a cone that the tip may go for, from as far beside it as it is."""
        way = self.tip - place
        beside = np.linalg.norm(way - (way @ out) * out)
        return place + max(0.0, CONE * (beside - STRAIGHT)) * out

    def wait(self, phase: str, steps: int) -> Motion:
        """Keep the pose, for instance while the fingers move."""
        self.phase, self.moving = phase, False
        for _ in range(steps):
            yield self.action(None, None, 1.0)

    def close(self, steps: int = 6) -> Motion:
        self.gripper = CLOSE
        return self.wait("grip", steps)

    def open(self, steps: int = 8) -> Motion:
        self.gripper = OPEN
        return self.wait("release", steps)
