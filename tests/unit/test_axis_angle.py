"""Rotation vectors of the hand: right, and without a jump at the pose that the hand works in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.simulators.libero.adapter import axis_angle

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation
component = st.floats(-1, 1, allow_nan=False)


@given(st.tuples(component, component, component, component).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_it_is_the_rotation_and_its_antipode_gives_the_same(parts: tuple[float, ...]) -> None:
    quaternion = np.array(parts) / np.linalg.norm(parts)
    vector = axis_angle(quaternion)
    assert np.allclose(Rotation.from_rotvec(vector).as_matrix(), Rotation.from_quat(quaternion).as_matrix(), atol=1e-6)
    if quaternion[0] != 0:
        assert np.allclose(vector, axis_angle(-quaternion))


def test_it_does_not_jump_around_the_downward_pose() -> None:
    angles = np.linspace(np.pi - 0.5, np.pi + 0.5, 101)
    vectors = np.array([axis_angle(Rotation.from_rotvec([angle, 0, 0]).as_quat()) for angle in angles])
    assert np.allclose(vectors, np.stack([angles, 0 * angles, 0 * angles], 1), atol=1e-9)


def test_no_rotation_is_the_zero_vector() -> None:
    assert np.array_equal(axis_angle(np.array([0.0, 0, 0, 1])), np.zeros(3))
