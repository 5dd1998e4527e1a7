"""The low-poly robot: smaller, of the same shape, only where looks are concerned, and built safely."""

from __future__ import annotations

import multiprocessing
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.simulators.libero import robot_meshes
from avavla_ray.simulators.libero.robot_meshes import FEWEST_FACES, REDUCTION, reduced_mesh, with_reduced_robot

trimesh = pytest.importorskip("trimesh")
ROBOSUITE = Path(pytest.importorskip("robosuite").__file__).parent / "models" / "assets"
LINK = ROBOSUITE / "robots/panda/obj_meshes/link1_vis/link1_vis.obj"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path))
    reduced_mesh.cache_clear()
    yield tmp_path
    reduced_mesh.cache_clear()


def test_a_reduced_link_keeps_its_shape() -> None:
    full, small = trimesh.load(LINK, force="mesh"), trimesh.load(reduced_mesh(LINK), force="mesh")
    assert len(small.faces) == pytest.approx(len(full.faces) / REDUCTION, rel=0.05)
    assert np.abs(small.bounds - full.bounds).max() < 0.003  # metres
    assert small.area == pytest.approx(full.area, rel=0.02)
    _, distances, _ = trimesh.proximity.closest_point_naive(full, small.vertices[::50])
    assert distances.max() < 0.003


def test_a_mesh_that_is_small_already_stays(own_cache: Path) -> None:
    finger = ROBOSUITE / "grippers/meshes/panda_gripper/finger_longer.stl"
    assert len(trimesh.load(finger, force="mesh").faces) < FEWEST_FACES
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
    robot_meshes._recipe.cache_clear()
    monkeypatch.setattr(robot_meshes, "FEWEST_FACES", FEWEST_FACES + 1)
    assert reduced_mesh(LINK) != built
    robot_meshes._recipe.cache_clear()


def test_processes_may_build_at_the_same_time(own_cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(reduced_mesh, [LINK] * 3, chunksize=1)
    assert len(set(paths)) == 1
    assert list(own_cache.rglob("*")) == [own_cache / "robot-meshes", paths[0]]
    assert len(trimesh.load(paths[0], force="mesh").faces) > FEWEST_FACES


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
