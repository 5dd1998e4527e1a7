"""CALVIN's low-poly robot: what is looked at has fewer triangles, looks the same, and all else is the clone's own."""

from __future__ import annotations

import multiprocessing
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.installation import ROBOT_FILE, Installation
from avavla_ray.simulators.calvin.robot_meshes import FAR, NEAR, reduced_robot

trimesh = pytest.importorskip("trimesh")
HOUSING, RING = "housing", "a.ring"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ball(radius: float, place: float) -> trimesh.Trimesh:
    made = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    made.apply_translation((place, 0, 0))
    return made


def obj(parts: dict[str, trimesh.Trimesh], textured: str) -> str:
    """As the clone's own are: an object a material; one of them without texture."""
    lines, first, first_texture = ["mtllib looks.mtl"], 1, 1
    for name, part in parts.items():
        lines += [f"o {name}", *(f"v {x:f} {y:f} {z:f}" for x, y, z in part.vertices)]
        lines += [f"vt {0.25 + 0.5 * (x > 0):.2f} 0.5" for x, *_ in part.vertices] if name == textured else []
        lines += [f"usemtl {name}"]
        for face in part.faces:
            corners = [f"{c + first}/{c + first_texture}" if name == textured else f"{c + first}" for c in face]
            lines.append("f " + " ".join(corners))
        first += len(part.vertices)
        first_texture += len(part.vertices) if name == textured else 0
    return "\n".join(lines) + "\n"


@pytest.fixture
def found(tmp_path: Path) -> Installation:
    """A clone with one link and a hand."""
    urdf = tmp_path / "clone/data" / ROBOT_FILE
    for folder in ("visual", "collision"):
        (urdf.parent / "meshes" / folder).mkdir(parents=True)
    looks = urdf.parent / "meshes/visual"
    parts = {RING: ball(0.05, -0.2), HOUSING: ball(0.1, 0.0)}
    for name in ("link1", "hand"):
        (looks / f"{name}.obj").write_text(obj(parts, HOUSING))
    (looks / "looks.mtl").write_text(f"newmtl {HOUSING}\nmap_Kd colours.png\n\nnewmtl {RING}\nKd 1 0 0\n")
    (looks / "colours.png").write_bytes(b"a picture")
    ball(0.01, 0.0).export(looks / "digit.STL", file_type="stl")
    trimesh.creation.icosphere(subdivisions=2, radius=0.1).export(urdf.parent / "meshes/collision/link1.obj")

    def mesh(kind: str, name: str, ending: str = "obj") -> str:
        return f'<{kind}><geometry><mesh filename="package://meshes/{name}.{ending}"/></geometry></{kind}>'

    link = mesh("visual", "visual/link1") + mesh("collision", "collision/link1") + mesh("visual", "visual/digit", "STL")
    link += '<inertial><mass value="2"/></inertial>'
    hand = mesh("visual", "visual/hand") + mesh("visual", "collision/link1")
    urdf.write_text(f'<robot name="arm"><link name="a">{link}</link><link name="b">{hand}</link></robot>')
    return Installation(tmp_path / "clone", "unknown", "other", "0" * 64)


def meshes(urdf: Path, kind: str) -> list[Path]:
    return [Path(mesh.get("filename", "")) for mesh in ET.parse(urdf).iterfind(f".//{kind}/geometry/mesh")]


def parts_of(path: Path) -> dict[str, trimesh.Trimesh]:
    scene = trimesh.load(path, process=False, group_material=True, split_object=False)
    return {part.visual.material.name: part for part in scene.geometry.values()}


def test_only_what_is_looked_at_is_replaced(found: Installation) -> None:
    source = found.data / ROBOT_FILE
    built = reduced_robot(found)
    link, tip, hand, plain = meshes(built, "visual")
    assert link.parent == hand.parent == tip.parent == built.parent / "visual"
    # It is small, and stays.
    assert plain == source.parent / "meshes/collision/link1.obj"
    assert meshes(built, "collision") == [plain]
    assert ET.parse(built).find(".//inertial/mass").get("value") == "2"
    assert (link.parent / "looks.mtl").read_text() == (source.parent / "meshes/visual/looks.mtl").read_text()
    assert (link.parent / "colours.png").read_bytes() == b"a picture"
    # It has the colour that the URDF gives.
    assert "usemtl" not in tip.read_text()
    assert 0.9 < len(trimesh.load(tip).faces) / NEAR.fewest_faces < 1.2


def test_parts_keep_shape_order_and_texture(found: Installation) -> None:
    source = found.data / ROBOT_FILE
    for path, wish in zip(meshes(reduced_robot(found), "visual")[:3:2], (FAR, NEAR), strict=True):
        text = path.read_text()
        # Which of the textures PyBullet takes depends on the order.
        assert [line for line in text.splitlines() if line.startswith("usemtl")] == [
            f"usemtl {RING}",
            f"usemtl {HOUSING}",
        ]
        full, small = parts_of(source.parent / "meshes/visual" / path.name), parts_of(path)
        for name in (RING, HOUSING):
            wanted = wish.faces(len(full[name].faces))
            assert wanted < len(full[name].faces)
            assert 0.5 * wanted <= len(small[name].faces) <= wanted
            assert small[name].bounds == pytest.approx(full[name].bounds, abs=0.15 * full[name].extents.max())
        texture = np.asarray(small[HOUSING].visual.uv)[:, 0]
        right = small[HOUSING].vertices[:, 0] > 0.02
        assert right.any()
        assert texture[right] == pytest.approx(0.75)
        assert texture[small[HOUSING].vertices[:, 0] < -0.02] == pytest.approx(0.25)


def test_a_robot_is_built_once_and_anew_for_another_clone(found: Installation) -> None:
    built = reduced_robot(found)
    time = built.stat().st_mtime_ns
    assert reduced_robot(found) == built
    assert built.stat().st_mtime_ns == time
    (built.parent / "visual/hand.obj").unlink()
    assert reduced_robot(found) == built
    assert (built.parent / "visual/hand.obj").exists(), "PyBullet would have shown an arm without a hand"
    assert reduced_robot(Installation(found.root, "unknown", "other", "1" * 64)) != built


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build(barrier: Any, found: Installation) -> None:
    barrier.wait(120)
    reduced_robot(found)


def test_processes_may_build_at_the_same_time(found: Installation, own_cache: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    builders = [spawn.Process(target=build, args=(barrier, found)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    together = contents(own_cache)
    shutil.rmtree(own_cache)
    reduced_robot(found)
    assert together == contents(own_cache)
    names = {Path(name).name for name in together}
    assert names == {"panda_longer_finger.urdf", "link1.obj", "hand.obj", "digit.obj", "looks.mtl", "colours.png"}


@pytest.mark.parametrize("name", ["looks.mtl", "colours.png", "hand.obj"])
def test_a_clone_that_lacks_a_file_is_told_so(found: Installation, name: str) -> None:
    (found.data / ROBOT_FILE).with_name("meshes").joinpath("visual", name).unlink()
    with pytest.raises(InputError, match=f"calvin_env lacks .*{name}: set CALVIN_ENV_ROOT"):
        reduced_robot(found)


def test_a_robot_without_meshes_stays(tmp_path: Path) -> None:
    urdf = tmp_path / "data" / ROBOT_FILE
    urdf.parent.mkdir(parents=True)
    urdf.write_text('<robot name="bare"/>')
    assert reduced_robot(Installation(tmp_path, "unknown", "other", "0" * 64)) == urdf
