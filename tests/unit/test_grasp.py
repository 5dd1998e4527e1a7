"""Grasp planning on points alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from avavla_ray.simulators.experts.grasp import (
    BELOW_RIM,
    BELOW_TOP,
    MAX_WIDTH,
    OVERHANG_GAP,
    overhang_escape,
    plan_grasp,
)

NOTHING = np.zeros((0, 3))
SHOULDER = np.array([-0.3, 0.0, 0.3])


def block(centre: tuple[float, ...], half: tuple[float, ...], yaw: float = 0.0) -> np.ndarray:
    """Corners of a turned cuboid."""
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * half
    cos, sin = np.cos(yaw), np.sin(yaw)
    return corners @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + centre


def bowl(centre: tuple[float, float], radius: float = 0.053, height: float = 0.05) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    return np.concatenate([np.c_[ring, np.zeros(72)], np.c_[ring, np.full(72, height)]])


@pytest.mark.parametrize("yaw", np.radians([0, 20, 65, -50]))
def test_a_narrow_box_is_enclosed_across_its_narrow_side(yaw: float) -> None:
    grasp = plan_grasp(block((0.1, 0.2, 0.03), (0.05, 0.02, 0.03), yaw), NOTHING, yaw + np.pi / 2, SHOULDER)
    assert not grasp.rim
    assert abs(grasp.turn) < np.radians(6)
    assert grasp.position == pytest.approx([0.1, 0.2, 0.03], abs=1e-6)


def test_the_hand_turns_the_short_way() -> None:
    long_box = block((0, 0, 0.02), (0.06, 0.02, 0.02))
    for closing_yaw in np.radians([0, 80, 100, 180, 270, -100]):
        grasp = plan_grasp(long_box, NOTHING, closing_yaw, SHOULDER)
        across = (closing_yaw + grasp.turn) % np.pi
        assert across == pytest.approx(np.pi / 2, abs=np.radians(45))
        assert abs(grasp.turn) <= np.pi / 2
        width = 2 * (0.06 * abs(np.cos(across)) + 0.02 * abs(np.sin(across)))
        assert width <= MAX_WIDTH + 1e-9


def test_tall_things_are_held_near_the_top() -> None:
    grasp = plan_grasp(block((0, 0, 0.1), (0.02, 0.02, 0.1)), NOTHING, 0.0, SHOULDER)
    assert grasp.position[2] == pytest.approx(0.2 - BELOW_TOP)


def test_a_wide_bowl_is_held_by_its_rim() -> None:
    target = bowl((0.0, 0.1))
    grasp = plan_grasp(target, NOTHING, np.pi / 2, SHOULDER)
    assert grasp.rim
    assert grasp.position[2] == pytest.approx(0.05 - BELOW_RIM)
    assert 0.04 < np.linalg.norm(grasp.position[:2] - [0, 0.1]) < 0.053


def test_fingers_stay_clear_of_neighbours() -> None:
    target = bowl((0.0, 0.0))
    # A wall along the side of the rim that would be the cheapest otherwise.
    free = plan_grasp(target, NOTHING, np.pi / 2, SHOULDER)
    side = np.sign(free.position[1])
    wall = np.array([[x, side * y, z] for x in np.arange(-0.06, 0.061, 0.008)
                     for y in np.arange(0.07, 0.13, 0.008) for z in np.arange(0, 0.12, 0.008)])  # fmt: skip
    grasp = plan_grasp(target, wall, np.pi / 2, SHOULDER)
    assert grasp.cost < 1.0
    assert side * grasp.position[1] < 0.02


def test_a_stretched_arm_takes_the_near_side() -> None:
    far = plan_grasp(bowl((0.5, 0.0)), NOTHING, np.pi / 2, SHOULDER)
    assert far.position[0] < 0.5 - 0.02
    near = plan_grasp(bowl((0.1, 0.0)), NOTHING, np.pi / 2, SHOULDER)
    assert near.turn == pytest.approx(0.0, abs=1e-6)


def test_escape_from_an_overhang_leads_away_from_it_and_far_enough() -> None:
    target = bowl((0.0, 0.0))
    shelf = np.array([[x, y, 0.08] for x in np.arange(0.045, 0.2, 0.005) for y in np.arange(-0.1, 0.101, 0.005)])
    shift = overhang_escape(target, shelf)
    assert shift[0] < 0
    assert abs(shift[1]) < 0.002
    assert 0.045 - shift[0] >= 0.053 + OVERHANG_GAP - 1e-6


def test_nothing_to_escape_from_below_aside_or_all_around() -> None:
    target = bowl((0.0, 0.0))
    assert not overhang_escape(target, NOTHING).any()
    assert not overhang_escape(target, np.array([[0.05, 0.0, 0.02], [0.2, 0.0, 0.1]])).any()
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    collar = np.stack([0.055 * np.cos(angles), 0.055 * np.sin(angles), np.full(12, 0.1)], 1)
    assert not overhang_escape(target, collar).any()
