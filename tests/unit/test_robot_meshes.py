"""The low-poly robot: smaller, of the same shape, only where looks are concerned, and built safely."""

from __future__ import annotations

import multiprocessing
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.simulators.libero import robot_meshes
from avavla_ray.simulators.libero.robot_meshes import FAR, NEAR, coarseness, reduced_mesh, with_reduced_robot

trimesh = pytest.importorskip("trimesh")
ROBOSUITE = Path(pytest.importorskip("robosuite").__file__).parent / "models" / "assets"
LINK = ROBOSUITE / "robots/panda/obj_meshes/link1_vis/link1_vis.obj"
HAND = ROBOSUITE / "grippers/meshes/panda_gripper/hand_vis.stl"
PEDESTAL = ROBOSUITE / "mounts/meshes/rethink_mount/pedestal.stl"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path))
    reduced_mesh.cache_clear()
    yield tmp_path
    reduced_mesh.cache_clear()


# Millimetres that a surface may move: a pixel of a picture at 128 covers 1 cm of the robot, 1 mm of the hand.
@pytest.mark.parametrize(("source", "millimetres"), [(HAND, 3), (LINK, 6), (PEDESTAL, 12)])
def test_a_reduced_mesh_keeps_its_shape(source: Path, millimetres: float) -> None:
    full, small = trimesh.load(source, force="mesh"), trimesh.load(reduced_mesh(source), force="mesh")
    wanted = max(coarseness(source).fewest_faces, len(full.faces) / coarseness(source).reduction)
    assert 0.9 < len(small.faces) / wanted < 1.35
    assert np.abs(small.bounds - full.bounds).max() * 1e3 < millimetres
    assert small.extents == pytest.approx(full.extents, rel=0.05)
    points, _ = trimesh.sample.sample_surface(small, 60, seed=0)
    _, distances, _ = trimesh.proximity.closest_point_naive(full, points)
    assert np.quantile(distances, 0.9) * 1e3 < millimetres


def test_what_the_hand_camera_sees_from_nearby_stays_finer() -> None:
    assert coarseness(HAND) == NEAR
    assert coarseness(LINK) == coarseness(PEDESTAL) == FAR


def test_a_mesh_that_is_small_already_stays(own_cache: Path) -> None:
    finger = ROBOSUITE / "grippers/meshes/panda_gripper/finger_longer.stl"
    assert len(trimesh.load(finger, force="mesh").faces) < NEAR.fewest_faces
    assert reduced_mesh(finger) == finger
    reduced_mesh.cache_clear()
    assert reduced_mesh(finger) == finger
    assert not list(own_cache.rglob("*.obj"))


def test_a_mesh_is_reduced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = reduced_mesh(LINK)
    time = built.stat().st_mtime_ns
    reduced_mesh.cache_clear()
    assert reduced_mesh(LINK) == built
    assert built.stat().st_mtime_ns == time
    reduced_mesh.cache_clear()
    monkeypatch.setattr(robot_meshes, "FAR", replace(FAR, fewest_faces=FAR.fewest_faces + 1))
    assert reduced_mesh(LINK) != built


def test_processes_may_build_at_the_same_time(own_cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(reduced_mesh, [LINK] * 3, chunksize=1)
    assert len(set(paths)) == 1
    assert list(own_cache.rglob("*")) == [own_cache / "robot-meshes", paths[0]]
    assert len(trimesh.load(paths[0], force="mesh").faces) > FAR.fewest_faces


def test_only_meshes_without_contact_and_texture_are_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "bottle.obj"
    names = {"look": LINK, "solid": LINK, "both": LINK, "painted": LINK, "foreign": foreign}
    geoms = {
        "look": 'group="1" contype="0" conaffinity="0"',
        "solid": 'group="0"',
        "both": 'group="1" contype="0" conaffinity="0"',
        "painted": 'group="1" contype="0" conaffinity="0" material="paint"',
        "foreign": 'group="1" contype="0" conaffinity="0"',
    }
    xml = (
        '<mujoco><asset><texture name="t" builtin="flat"/><material name="paint" texture="t"/>'
        + "".join(f'<mesh name="{name}" file="{path}" scale="2 2 2"/>' for name, path in names.items())
        + "</asset><worldbody>"
        + "".join(f'<geom type="mesh" mesh="{name}" {attributes}/>' for name, attributes in geoms.items())
        + '<geom type="mesh" mesh="both" group="0"/></worldbody></mujoco>'
    )
    meshes = {mesh.get("name"): mesh for mesh in ET.fromstring(with_reduced_robot(xml)).iter("mesh")}
    assert meshes["look"].get("file") == str(reduced_mesh(LINK)) != str(LINK)
    assert meshes["look"].get("scale") == "2 2 2"
    for name in ("solid", "both", "painted", "foreign"):
        assert meshes[name].get("file") == str(names[name]), name
