"""How the experts turn poses into CALVIN's actions, on an arm that follows its commands exactly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.simulators.calvin.experts.arm import (
    CLOSE,
    OPEN,
    POSITION_UNIT,
    ROTATION_UNIT,
    Arm,
    Motion,
    euler_of,
    levelled,
    out_of_palm,
    pointing_down,
    shifted,
)
from avavla_ray.simulators.calvin.experts.tasks import SKILLS
from avavla_ray.simulators.calvin.tasks import TASKS


def rotation_of(euler: np.ndarray) -> np.ndarray:
    """(3, 3) of Euler angles about the world's x, y and z axis, in this order."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(euler), np.cos(euler)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def ideal_arm() -> tuple[Arm, Any]:
    """An arm whose tip is where it was commanded to be, except while `blocked_at` holds it there."""
    robot = SimpleNamespace(
        robot_uid=0, tcp_link_id=15, gripper_action=1, target_pos=np.array([0.0, -0.2, 0.6]), target_orn=pointing_down()
    )
    world = SimpleNamespace(robot=robot, cid=0, blocked_at=None)

    def link_state(*_: Any, **__: Any) -> tuple[Any, Any]:
        return (robot.target_pos if world.blocked_at is None else world.blocked_at), None

    world.p = SimpleNamespace(getLinkState=link_state)
    return Arm(world), world


def play(motion: Motion, world: Any) -> list[np.ndarray]:
    """Run a motion as CALVIN would: each action moves the commanded pose."""
    actions = []
    for action in motion:
        world.robot.target_pos = world.robot.target_pos + action[:3] * POSITION_UNIT
        world.robot.target_orn = world.robot.target_orn + action[3:6] * ROTATION_UNIT
        actions.append(action)
    return actions


def test_every_task_has_a_skill() -> None:
    assert set(SKILLS) == set(TASKS)


def test_a_motion_is_straight_bounded_and_arrives() -> None:
    arm, world = ideal_arm()
    start, goal = arm.commanded, np.array([0.25, -0.1, 0.45])
    actions = play(arm.go("reach", goal, pointing_down(0.5), speed=0.7), world)
    np.testing.assert_allclose(arm.tip, goal, atol=4e-3)
    np.testing.assert_allclose(arm.commanded_turn, pointing_down(0.5), atol=0.03)
    steps = np.array(actions)
    assert steps.dtype == np.float32
    assert np.abs(steps).max() <= 1.0
    assert np.abs(steps[:, :3]).max() == pytest.approx(0.7)
    assert (steps[:, 6] == OPEN).all()
    way = (goal - start) / np.linalg.norm(goal - start)
    moving = steps[np.linalg.norm(steps[:, :3], axis=1) > 0.1, :3]
    np.testing.assert_allclose(
        moving / np.linalg.norm(moving, axis=1, keepdims=True), np.tile(way, (len(moving), 1)), atol=1e-4
    )


def test_a_blocked_motion_gives_up() -> None:
    arm, world = ideal_arm()
    world.blocked_at = arm.tip
    goal = shifted(arm.tip, z=-0.1)
    free_steps = int(np.ceil(0.1 / (POSITION_UNIT * 0.5)))
    assert len(play(arm.go("press", goal, speed=0.5, settle=4), world)) == free_steps + 4
    assert len(play(arm.go("press", goal + 1.0, limit=7), world)) == 7


def test_fingers_move_without_the_arm() -> None:
    arm, world = ideal_arm()
    before = arm.commanded
    actions = np.array(play(arm.close(), world))
    assert not arm.moving
    assert arm.phase == "grip"
    assert (actions[:, 6] == CLOSE).all()
    assert not actions[:, :6].any()
    np.testing.assert_array_equal(arm.commanded, before)
    assert (np.array(play(arm.open(), world))[:, 6] == OPEN).all()


@given(st.floats(-1.5, 1.5), st.floats(-1.0, 1.0))
def test_pointing_down_turned_and_tipped(turn: float, tip: float) -> None:
    rotation = rotation_of(pointing_down(turn, tip))
    np.testing.assert_allclose(-rotation[:, 2], out_of_palm(tip), atol=1e-9)
    np.testing.assert_allclose(rotation_of(euler_of(rotation)), rotation, atol=1e-9)
    # The fingers close along the hand's y axis.
    closing = rotation_of(pointing_down(turn))[:, 1]
    assert abs(closing @ [np.cos(turn), np.sin(turn), 0]) == pytest.approx(1)


@given(st.floats(-1.0, 1.0), st.floats(-0.7, 0.7))
def test_levelling_undoes_the_tip_of_what_is_held(turn: float, tip: float) -> None:
    """A block that stood straight when it was taken tips along with the hand."""
    taken, now = rotation_of(pointing_down(turn)), rotation_of(pointing_down(turn, tip))
    held = now @ taken.T
    hand = rotation_of(levelled(now, held))
    np.testing.assert_allclose((hand @ now.T @ held)[2], [0, 0, 1], atol=1e-6)
