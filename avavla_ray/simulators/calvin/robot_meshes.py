"""A low-poly robot for the fast renderer, made from calvin_env's own meshes at first use and kept in the cache.

The robot has 108,000 of the scene's 113,000 triangles, and PyBullet's tiny renderer looks at every one of them in every
picture, however small that is. Only what is looked at is replaced: collisions and inertia stay the clone's own files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.files import atomic_path, cache_folder
from avavla_ray.simulators.calvin.installation import ROBOT_FILE, Installation, need_file
from avavla_ray.simulators.mesh_reduction import CREASE, Coarseness, reduced, reduction_versions

if TYPE_CHECKING:
    import trimesh

# Of each material's part of a mesh. Hand and fingers are what the camera in the hand sees from nearby.
NEAR, FAR = Coarseness(8, 600), Coarseness(24, 20)
NEAR_THE_HAND = ("hand", "longer_finger", "digit")  # how their files' names begin
FEW = 1000  # triangles: so small a mesh stays
PACKAGE = "package://"
LAYOUT = 2  # of the files written here, and of how the robot looks


def reduced_robot(found: Installation) -> Path:
    """URDF file of the same robot, whose visual meshes have a part of their triangles; the clone's own if it has none.

    Every file is renamed into place when it is whole, the URDF last, so that processes may build it at the same time.

    Raises:
        InputError: trimesh or fast-simplification is not installed, the clone lacks a file, or the cache cannot be
            written.
    """
    source = found.data / ROBOT_FILE
    model = ET.parse(source)
    looks = {mesh: _file(source, mesh) for mesh in model.iterfind(".//visual/geometry/mesh")}
    if not looks:
        return source
    recipe = f"{LAYOUT} {NEAR} {FAR} {FEW} {CREASE} {reduction_versions()} {found.root} {found.digest}"
    folder = cache_folder() / f"calvin-robot-{hashlib.sha256(recipe.encode()).hexdigest()[:20]}"
    target = folder / source.name
    # PyBullet would show a robot without the mesh that is gone, and hardly say so.
    if target.exists() and all(_file(target, mesh).exists() for mesh in ET.parse(target).iter("mesh")):
        return target
    for mesh in model.iter("mesh"):
        # From another folder, a path that is relative to the URDF leads nowhere.
        mesh.set("filename", str(_file(source, mesh)))
    small = {path: _reduced_copy(path, folder) for path in set(looks.values())}
    for mesh, path in looks.items():
        mesh.set("filename", str(small[path]))
    with atomic_path(target) as temporary:
        model.write(temporary)
    return target


def _file(urdf: Path, mesh: ET.Element) -> Path:
    return urdf.parent / mesh.get("filename", "").removeprefix(PACKAGE)


def _reduced_copy(source: Path, folder: Path) -> Path:
    """A copy in `folder`: an object a material, in the source's order, of which PyBullet takes the texture."""
    import trimesh

    loaded = trimesh.load(need_file(source), process=False)
    parts = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    if sum(len(part.faces) for part in parts) < FEW:
        return source
    text = source.read_text(encoding="utf-8") if source.suffix == ".obj" else ""
    libraries, materials = (re.findall(rf"^{word} +(\S+)", text, re.MULTILINE) for word in ("mtllib", "usemtl"))
    target = folder / source.parent.name / f"{source.stem}.obj"
    for library in libraries:
        _copy_materials(need_file(source.parent / library), target.parent)
    named = [(_material(part), part) for part in parts]
    named.sort(key=lambda each: materials.index(each[0]) if each[0] in materials else -1)
    lines, vertices = [f"mtllib {library}" for library in libraries], 0
    wish = NEAR if source.stem.startswith(NEAR_THE_HAND) else FAR
    for name, part in named:
        more, count = _object(name, part, wish, vertices)
        lines, vertices = lines + more, vertices + count
    with atomic_path(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def _material(part: trimesh.Trimesh) -> str | None:
    """Name of a part's material; None where it has the colour that the URDF gives."""
    material = getattr(part.visual, "material", None)
    return None if material is None else material.name


def _object(name: str | None, part: trimesh.Trimesh, wish: Coarseness, before: int) -> tuple[list[str], int]:
    """Lines of an OBJ file that has `before` vertices so far, and how many vertices these are.

    A new vertex takes the texture coordinates of the nearest old one.
    """
    from scipy.spatial import cKDTree

    points, texture = np.array(part.vertices), getattr(part.visual, "uv", None)
    texture = np.zeros((len(points), 2)) if texture is None else np.asarray(texture)
    small = reduced(part, wish)
    nearest = cKDTree(points).query(small.vertices)[1]
    corners = small.faces + before + 1
    lines = [
        f"o {name or 'mesh'}",
        *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in small.vertices),
        *(f"vt {u:.6f} {v:.6f}" for u, v in texture[nearest]),
        *(f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in small.vertex_normals),
        *([] if name is None else [f"usemtl {name}"]),
        *("f " + " ".join(f"{corner}/{corner}/{corner}" for corner in face) for face in corners),
    ]
    return lines, len(small.vertices)


def _copy_materials(library: Path, folder: Path) -> None:
    """A material library and the pictures that it names, which lie where it says."""
    words = [line.split() for line in library.read_text(encoding="utf-8").splitlines()]
    pictures = {word[-1] for word in words if word and word[0].startswith("map_")}
    for name in (library.name, *sorted(pictures)):
        source = need_file(library.parent / name)
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source, temporary)
