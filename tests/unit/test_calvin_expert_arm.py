"""How the experts turn poses into CALVIN's actions, on arms that follow their commands at once or late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.simulators.calvin.experts.arm import (
    CLOSE,
    LEAD,
    MISSES,
    NEAR,
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


def made_arm(follows: float = 1.0) -> tuple[Arm, Any]:
    """An arm that makes up for a share of its lag in each step: the real one for about 0.5."""
    start = np.array([0.0, -0.2, 0.6])
    robot = SimpleNamespace(
        robot_uid=0, tcp_link_id=15, gripper_action=1, target_pos=start, target_orn=pointing_down()
    )  # fmt: skip
    world = SimpleNamespace(robot=robot, cid=0, tip=start, turn=pointing_down(), follows=follows)
    world.p = SimpleNamespace(
        getLinkState=lambda *_, **__: (world.tip, world.turn),
        getMatrixFromQuaternion=lambda turn: rotation_of(turn).flatten(),
    )
    return Arm(world), world


def play(motion: Motion, world: Any, disturbance: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[np.ndarray]:
    """Run a motion as CALVIN would: each action moves the commanded pose, and the arm follows."""
    actions, robot = [], world.robot
    for action in motion:
        robot.target_pos = robot.target_pos + (action[:3] + disturbance) * POSITION_UNIT
        robot.target_orn = robot.target_orn + action[3:6] * ROTATION_UNIT
        world.tip = world.tip + world.follows * (robot.target_pos - world.tip)
        world.turn = world.turn + world.follows * (robot.target_orn - world.turn)
        actions.append(action)
    return actions


def test_every_task_has_a_skill() -> None:
    assert set(SKILLS) == set(TASKS)


@pytest.mark.parametrize("follows", [1.0, 0.5])
def test_a_motion_is_straight_bounded_and_arrives(follows: float) -> None:
    arm, world = made_arm(follows)
    start, goal = arm.tip, np.array([0.25, -0.1, 0.45])
    actions = play(arm.go("reach", goal, pointing_down(0.5), speed=0.7, tolerance=0.004), world)
    np.testing.assert_allclose(arm.tip, goal, atol=4e-3)
    np.testing.assert_allclose(euler_of(arm.rotation)[2], pointing_down(0.5)[2], atol=0.05)
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


def test_an_action_follows_from_where_the_arm_is_seen_to_be() -> None:
    """Two arms at one place, of which one has been commanded elsewhere: who clones them cannot tell them apart."""
    (arm, _), (other, world) = made_arm(), made_arm()
    world.robot.target_pos = shifted(arm.tip, x=0.01, y=-0.005)
    world.robot.target_orn = pointing_down(0.1)
    goal = shifted(arm.tip, x=0.03, y=0.02, z=-0.1)
    np.testing.assert_array_equal(
        arm.action(goal, pointing_down(0.4), 0.7), other.action(goal, pointing_down(0.4), 0.7)
    )  # fmt: skip


def test_a_blocked_motion_gives_up_and_presses_no_harder_than_it_may() -> None:
    arm, world = made_arm(follows=0.0)
    assert len(play(arm.go("press", shifted(arm.tip, z=-0.1), speed=0.5, settle=4), world)) == 5
    play(arm.go("press", shifted(arm.tip, z=-0.1), speed=0.5, settle=40), world)
    np.testing.assert_allclose(arm.commanded - arm.tip, [0, 0, -LEAD], atol=1e-6)
    arm, world = made_arm()
    assert len(play(arm.go("reach", shifted(arm.tip, z=1.0), limit=7), world)) == 7


def test_a_motion_is_disturbed_for_a_few_steps_only_where_it_ends() -> None:
    arm, world = made_arm(follows=0.5)
    goal = shifted(arm.tip, x=0.2)
    far, near = [], []
    for action in arm.go("reach", goal):
        (far if np.linalg.norm(goal - arm.tip) > NEAR else near).append(arm.moving)
        play(iter([action]), world, (0.0, 0.3, 0.0) if arm.moving else (0.0, 0.0, 0.0))
    assert all(far)
    assert np.linalg.norm(goal - arm.tip) < 0.006, "it arrives all the same"
    assert near[:MISSES] == [True] * MISSES
    assert len(near) > MISSES
    assert not any(near[MISSES:])
    for action in arm.go("push", shifted(arm.tip, x=-0.2), delicate=True):
        assert not arm.moving
        play(iter([action]), world)


def test_a_narrow_place_is_entered_along_its_axis() -> None:
    """The tip starts beside and above it and is pushed aside at first: it comes down when it is over it."""
    arm, world = made_arm(follows=0.5)
    place, out = shifted(arm.tip, x=0.03, z=-0.1), np.array([0.0, 0.0, 1.0])
    seen = []
    for step, action in enumerate(arm.go("descend", place, speed=0.5, tolerance=0.004, out=out)):
        play(iter([action]), world, (0.0, 0.5 if step < 8 else 0.0, 0.0))
        seen.append(arm.tip - place)
    way = np.array(seen)
    assert np.linalg.norm(way[-1]) < 0.004
    beside, above = np.linalg.norm(way[:, :2], axis=1), way[:, 2]
    assert beside.max() > 0.02
    assert (beside[above < 0.03] < 0.02).all()


def test_fingers_move_without_the_arm() -> None:
    arm, world = made_arm()
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
