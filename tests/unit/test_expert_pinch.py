"""The search for a hold, on points alone."""

from __future__ import annotations

import numpy as np
import pytest

from avavla_ray.simulators.experts.grasp import FINGER_BELOW, Grasp
from avavla_ray.simulators.experts.pinch import above_own_floor, has_hold, plan_pinch

NOTHING = np.zeros((0, 3))
SHOULDER = np.array([-0.3, 0.0, 0.3])
SPACING = 0.006


def block(low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    """Dense points of a cuboid."""
    axes = [np.linspace(a, b, int(np.ceil((b - a) / SPACING)) + 1) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


# A pot too wide for the hand, with a handle that sticks out along x.
POT = np.concatenate([block((-0.05, -0.05, 0.0), (0.05, 0.05, 0.1)), block((0.05, -0.01, 0.07), (0.13, 0.01, 0.085))])


def test_a_pot_is_taken_by_its_handle_across_it() -> None:
    hold = plan_pinch(POT, NOTHING, np.pi / 2, SHOULDER, floor=0.0)
    assert hold is not None
    assert hold.pinch
    assert 0.06 < hold.position[0] < 0.13
    assert hold.position[1] == pytest.approx(0.0, abs=0.005)
    assert abs(hold.turn) < np.radians(15)
    assert has_hold(POT, hold, np.pi / 2)


def test_a_hold_keeps_clear_of_neighbours() -> None:
    bar = block((-0.15, -0.01, 0.0), (0.15, 0.01, 0.03))
    free = plan_pinch(bar, NOTHING, np.pi / 2, SHOULDER, floor=0.0)
    wall = block((-0.05, 0.045, 0.0), (0.05, 0.06, 0.2))
    beside_wall = plan_pinch(bar, wall, np.pi / 2, SHOULDER, floor=0.0)
    assert free is not None
    assert beside_wall is not None
    assert abs(free.position[0]) < 0.02
    assert abs(beside_wall.position[0]) > 0.05


def test_where_it_slipped_it_is_not_taken_again() -> None:
    bar = block((-0.1, -0.01, 0.0), (0.1, 0.01, 0.03))
    first = plan_pinch(bar, NOTHING, np.pi / 2, SHOULDER, floor=0.0)
    assert first is not None
    second = plan_pinch(bar, NOTHING, np.pi / 2, SHOULDER, floor=0.0, slipped=(first.position[:2],))
    assert second is not None
    assert np.linalg.norm(second.position[:2] - first.position[:2]) > 0.02


def test_what_lies_too_flat_for_the_fingers_has_no_hold() -> None:
    assert plan_pinch(block((-0.1, -0.02, 0.0), (0.1, 0.02, 0.004)), NOTHING, 0.0, SHOULDER, floor=0.0) is None


def test_a_hold_in_the_air_or_into_the_thing_is_none() -> None:
    aside = Grasp(np.array([0.3, 0.0, 0.08]), 0.0, True, 0.0)
    across_the_pot = Grasp(np.array([0.0, 0.0, 0.09]), 0.0, True, 0.0)
    assert not has_hold(POT, aside, np.pi / 2)
    assert not has_hold(POT, across_the_pot, np.pi / 2)


def test_fingers_stay_above_the_bottom_of_a_shallow_dish() -> None:
    dish = np.concatenate(
        [block((-0.06, -0.06, 0.0), (0.06, 0.06, 0.012)), block((-0.06, 0.056, 0.0), (0.06, 0.06, 0.02))]
    )
    rim = Grasp(np.array([0.0, 0.058, 0.01]), 0.0, True, 0.0)
    assert above_own_floor(dish, rim, np.pi / 2).position[2] == pytest.approx(0.012 + FINGER_BELOW)
    high = Grasp(np.array([0.0, 0.058, 0.05]), 0.0, True, 0.0)
    assert above_own_floor(dish, high, np.pi / 2) == high
