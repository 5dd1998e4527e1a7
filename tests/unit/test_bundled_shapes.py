"""Primitives of the bundled assets: their meshes are closed, their boxes add up, their turns are what they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avavla_ray.simulators.libero.bundled.items import ITEMS
from avavla_ray.simulators.libero.bundled.meshes import lathe_mesh, prism_mesh, tube_mesh
from avavla_ray.simulators.libero.bundled.mjcf import Body
from avavla_ray.simulators.libero.bundled.shapes import (
    Box,
    Lathe,
    Prism,
    Tube,
    moved,
    quaternion,
    solid_prism,
    solid_ring,
    volume,
)


def enclosed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed: positive when the faces look outwards."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6)


def is_closed(faces: np.ndarray) -> bool:
    edges = [tuple(face[[i, (i + 1) % 3]]) for face in faces for i in range(3)]
    return len(set(edges)) == len(edges) and {(b, a) for a, b in edges} == set(edges)


def shapes_of(body: Body) -> list:
    return [*body.shapes, *itertools.chain.from_iterable(shapes_of(child) for child in body.children)]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_lathe_is_a_closed_solid_of_the_right_volume(axis: str) -> None:
    cylinder = Lathe(((0, -1), (0.5, -1), (0.5, 1), (0, 1)), "red", axis, segments=64)
    vertices, faces = lathe_mesh(cylinder)
    assert is_closed(faces)
    assert enclosed_volume(vertices, faces) == pytest.approx(2 * math.pi * 0.25, rel=0.01)
    assert np.ptp(vertices[:, "xyz".index(axis)]) == pytest.approx(2)


def test_a_lathe_away_from_its_axis_is_a_ring() -> None:
    ring = Lathe(((1.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0)), "red", segments=64)
    vertices, faces = lathe_mesh(ring)
    assert is_closed(faces)
    assert enclosed_volume(vertices, faces) == pytest.approx(math.pi * 3, rel=0.01)


def test_a_squashed_lathe_is_flatter_across_its_second_direction() -> None:
    vertices, _ = lathe_mesh(Lathe(((0, 0), (1, 0), (1, 1), (0, 1)), "red", "y", squash=0.5))
    assert np.ptp(vertices, axis=0) == pytest.approx([1.0, 1.0, 2.0])


def test_a_lathe_of_few_segments_can_be_turned() -> None:
    square = ((0, 0), (math.sqrt(2), 0), (math.sqrt(2), 1), (0, 1))
    vertices, _ = lathe_mesh(Lathe(square, "red", segments=4, phase=45.0))
    assert np.ptp(vertices, axis=0) == pytest.approx([2.0, 2.0, 1.0])


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_moved_shapes_keep_their_form(axis: str) -> None:
    by = (0.1, 0.2, 0.3)
    lathe = Lathe(((0, -1), (0.5, -1), (0.5, 1), (0, 1)), "red", axis, offset=(0.7, 0.8))
    prism = Prism(((0, 0), (2, 0), (0, 1)), 1.5, "red", axis, centre=4.0)
    box, tube = Box((0, 0, 0), (1, 1, 1), turn=("z", 10.0)), Tube(((0, 0, 0), (0, 0, 1)), 0.1, "red")
    there = moved((lathe, prism, box, tube), by)
    for mesh, before, after in (
        (lathe_mesh, lathe, there[0]),
        (prism_mesh, prism, there[1]),
        (tube_mesh, tube, there[3]),
    ):
        assert mesh(after)[0] == pytest.approx(mesh(before)[0] + by)
    assert there[2] == Box(by, (1, 1, 1), turn=("z", 10.0))


@pytest.mark.parametrize("turn", [(0, 0, 0), (40, 20, 70), (0, 90, 0)])
def test_a_tube_is_a_closed_bar_round_its_line(turn: tuple[float, ...]) -> None:
    line = Rotation.from_euler("xyz", turn, degrees=True).apply([(0, 0, 0), (3, 0, 0), (3, 0, 2)])
    vertices, faces = tube_mesh(Tube(tuple(map(tuple, line)), 0.1, "red"))
    assert is_closed(faces)
    octagon = 2 * math.sqrt(2) * 0.01
    assert enclosed_volume(vertices, faces) == pytest.approx(5 * octagon)
    ends = np.concatenate([vertices[:8] - line[0], vertices[-8:] - line[-1]])
    assert np.linalg.norm(ends, axis=1) == pytest.approx(np.full(16, 0.1))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_prism_is_a_closed_solid_of_the_right_volume(axis: str) -> None:
    vertices, faces = prism_mesh(Prism(((0, 0), (2, 0), (0, 1)), 1.5, "red", axis, centre=4.0))
    assert is_closed(faces)
    assert enclosed_volume(vertices, faces) == pytest.approx(3.0)
    assert vertices["xyz".index(axis) == np.arange(3)[None].repeat(6, 0)].min() == pytest.approx(2.5)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.path.rsplit("/", 1)[-1])
def test_every_surface_of_the_set_is_closed_and_looks_outwards(item) -> None:
    for shape in shapes_of(item.body):
        if not isinstance(shape, Box):
            mesh = {Lathe: lathe_mesh, Prism: prism_mesh, Tube: tube_mesh}[type(shape)]
            vertices, faces = mesh(shape)
            assert is_closed(faces), shape
            assert enclosed_volume(vertices, faces) > 0, shape


def test_a_solid_prism_fills_a_regular_polygon() -> None:
    boxes = solid_prism("z", 1.0, -0.5, 0.5)
    assert len(boxes) == 4
    corners = np.concatenate([box_corners(box) for box in boxes])
    assert np.abs(corners[:, 2]).max() == pytest.approx(0.5)
    radii = np.linalg.norm(corners[:, :2], axis=1)
    assert radii == pytest.approx(1 / math.cos(math.pi / 8))
    angles = np.unique(np.round(np.degrees(np.arctan2(corners[:, 1], corners[:, 0])) % 360, 3))
    assert angles == pytest.approx(np.arange(22.5, 360, 45))


def test_the_staves_of_a_ring_lean_outwards() -> None:
    ring = solid_ring(6, radius=1.0, centre=0.5, half=(0.01, 0.1, 0.5), lean=30.0)
    corners = np.concatenate([box_corners(box) for box in ring])
    radius = np.linalg.norm(corners[:, :2], axis=1)
    top = corners[:, 2] > 0.5
    assert radius[top].min() > radius[~top].max()
    assert ring[0].centre[:2] == pytest.approx((0.0, 1.0))


def test_quaternions_turn_after_leaning() -> None:
    box = Box((0, 0, 0), (1, 1, 1), turn=("z", 40.0), lean=("y", 25.0))
    w, x, y, z = quaternion(box)
    expected = Rotation.from_euler("z", 40, degrees=True) * Rotation.from_euler("y", 25, degrees=True)
    assert Rotation.from_quat([x, y, z, w]).as_matrix() == pytest.approx(expected.as_matrix())


def test_only_solid_boxes_have_volume() -> None:
    seen = Box((0, 0, 0), (1, 1, 1), "red", solid=False)
    assert volume((Box((0, 0, 0), (1, 2, 3)), seen, Lathe(((0, 0), (1, 1)), "red"))) == 48


def box_corners(box: Box) -> np.ndarray:
    w, x, y, z = quaternion(box)
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * box.half
    return Rotation.from_quat([x, y, z, w]).apply(corners) + box.centre
