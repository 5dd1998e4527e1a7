"""Where the experts hold and push CALVIN's blocks: geometry that needs no simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.simulators.calvin.experts.blocks import (
    FINGER_INNER,
    FINGER_OUTER,
    MAX_WIDTH,
    Block,
    grasps,
    landing_distance,
    shortest_turn,
)

TABLE = 0.44
PINK, BLUE = (0.08, 0.04, 0.04), (0.04, 0.04, 0.04)


def lying(x: float, y: float, yaw: float = 0.0, size: tuple[float, float, float] = BLUE, uid: int = 1) -> Block:
    """A block on the table, turned by `yaw`."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    return Block(f"block_{uid}", uid, np.array([x, y, TABLE + size[2] / 2]), rotation, np.array(size))


def standing(x: float, y: float) -> Block:
    """The long block on its end."""
    rotation = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
    return Block("block_pink", 1, np.array([x, y, TABLE + 0.04]), rotation, np.array(PINK))


@given(st.floats(-10, 10))
def test_shortest_turn_is_the_same_grasp_and_at_most_a_quarter(angle: float) -> None:
    turn = shortest_turn(angle)
    assert -np.pi / 2 <= turn < np.pi / 2 + 1e-9
    assert np.sin(turn - angle) == pytest.approx(0, abs=1e-9)


def test_extent_of_a_turned_block() -> None:
    block = lying(0, 0, yaw=np.pi / 4)
    assert block.half_extent(np.array([1.0, 0, 0])) == pytest.approx(0.02 * np.sqrt(2))
    assert block.top == pytest.approx(0.48)
    assert block.bottom == pytest.approx(TABLE)


@given(st.floats(-np.pi, np.pi))
def test_long_block_is_only_held_across_its_narrow_side(yaw: float) -> None:
    block = lying(0.1, -0.1, yaw, PINK)
    found = grasps(block, [])
    assert found
    for grasp in found:
        along = np.array([np.cos(grasp.turn), np.sin(grasp.turn), 0])
        assert 2 * block.half_extent(along) == pytest.approx(0.04)
        np.testing.assert_allclose(grasp.position, block.position)
    assert [grasp.cost for grasp in found] == sorted(grasp.cost for grasp in found)


def test_tall_block_is_held_below_its_top() -> None:
    block = standing(0.1, -0.1)
    assert grasps(block, [])[0].position[2] == pytest.approx(block.top - 0.024)
    assert 2 * block.half_extent(np.array([0, 0, 1.0])) > MAX_WIDTH


def test_fingers_avoid_a_neighbour() -> None:
    block = lying(0.1, -0.1)
    gap = (FINGER_INNER + FINGER_OUTER) / 2
    right, behind = lying(0.1 + gap + 0.02, -0.1, uid=2), lying(0.1, -0.1 + gap + 0.02, uid=3)
    assert abs(np.cos(grasps(block, [right])[0].turn)) < 0.01
    assert abs(np.sin(grasps(block, [behind])[0].turn)) < 0.01


def test_a_block_that_stands_on_a_corner_has_no_known_grasp() -> None:
    third = np.ones(3) / np.sqrt(3)
    first = np.array([1.0, -1.0, 0.0]) / np.sqrt(2)
    rotation = np.stack([first, np.cross(third, first), third])
    assert grasps(Block("block_red", 1, np.array([0.1, -0.1, 0.47]), rotation, np.array(BLUE)), []) == []


def test_landing_beside_a_block_or_behind_those_in_the_way() -> None:
    block, right = lying(0.2, -0.1), np.array([1.0, 0, 0])
    near = landing_distance(block, [], right)
    assert near == pytest.approx(0.05)
    neighbour = lying(0.2 - 0.05, -0.1, uid=2)
    far = landing_distance(block, [neighbour], right)
    assert block.position[0] - far < neighbour.position[0] - 0.02 - 0.02
    assert landing_distance(block, [lying(0.2, -0.02, uid=2)], right) == near
