"""A low-poly robot for the fast renderer, made from calvin_env's own meshes at first use and kept in the cache.

The robot has 103,000 of the scene's 105,000 triangles, and PyBullet's tiny renderer looks at every one of them in every
picture, however small that is. Only what is looked at is replaced: collisions and inertia stay the clone's own files.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.files import atomic_path, cache_folder
from avavla_ray.simulators.calvin.installation import ROBOT_FILE, Installation
from avavla_ray.simulators.mesh_reduction import CREASE, Coarseness, reduced, reduction_versions

if TYPE_CHECKING:
    import trimesh

# Of each material's part of a mesh. Hand and fingers are what the camera in the hand sees from nearby.
NEAR, FAR = Coarseness(8, 600), Coarseness(24, 20)
NEAR_THE_HAND = ("hand", "longer_finger")
PACKAGE = "package://"
LAYOUT = 1  # of the files written here


@functools.cache
def reduced_robot(found: Installation) -> Path:
    """URDF file of the same robot, whose visual meshes have a part of their triangles; the clone's own where none can
    be reduced.

    Every file is renamed into place when it is whole, the URDF last, so that processes may build it at the same time.

    Raises:
        InputError: trimesh or fast-simplification is not installed, or the cache cannot be written.
    """
    source = found.data / ROBOT_FILE
    model = ET.parse(source)
    looks = {mesh: _file(source, mesh) for mesh in model.iterfind(".//visual/geometry/mesh")}
    if not looks:
        return source
    recipe = f"{LAYOUT} {NEAR} {FAR} {CREASE} {reduction_versions()} {found.root} {found.digest}"
    folder = cache_folder() / f"calvin-robot-{hashlib.sha256(recipe.encode()).hexdigest()[:20]}"
    target = folder / source.name
    if target.exists():
        return target
    small = {path: _write_reduced(path, folder) for path in set(looks.values()) if path.suffix == ".obj"}
    for mesh in model.iter("mesh"):
        # From another folder, a path that is relative to the URDF leads nowhere.
        mesh.set("filename", str(_file(source, mesh)))
    for mesh, path in looks.items():
        mesh.set("filename", str(small.get(path, path)))
    with atomic_path(target) as temporary:
        model.write(temporary)
    return target


def _file(urdf: Path, mesh: ET.Element) -> Path:
    return urdf.parent / mesh.get("filename", "").removeprefix(PACKAGE)


def _write_reduced(source: Path, folder: Path) -> Path:
    """A reduced copy in `folder`: an object a material, in the source's order, of which PyBullet takes the texture."""
    import trimesh

    text = source.read_text(encoding="utf-8")
    libraries, materials = (re.findall(rf"^{word} +(\S+)", text, re.MULTILINE) for word in ("mtllib", "usemtl"))
    loaded = trimesh.load(source, process=False, group_material=True, split_object=False)
    parts = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    textured = [part for part in parts if isinstance(part.visual, trimesh.visual.TextureVisuals)]
    if len(textured) < len(parts) or {part.visual.material.name for part in textured} - set(materials):
        return source  # faces without a material: the few that there are have few triangles
    parts.sort(key=lambda part: materials.index(part.visual.material.name))
    for library in libraries:
        _copy_materials(source.parent / library, folder)
    lines, before = [f"mtllib {library}" for library in libraries], 0
    for part in parts:
        lines += _object(part, NEAR if source.stem.startswith(NEAR_THE_HAND) else FAR, before)
        before += sum(line.startswith("v ") for line in lines) - before
    target = folder / source.name
    with atomic_path(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def _object(part: trimesh.Trimesh, wish: Coarseness, before: int) -> list[str]:
    """Lines of an OBJ file that has `before` vertices so far. A new vertex has the nearest old one's texture."""
    from scipy.spatial import cKDTree

    name, points, texture = part.visual.material.name, np.array(part.vertices), part.visual.uv
    small = reduced(part, wish)
    nearest = cKDTree(points).query(small.vertices)[1]
    texture = np.zeros((len(points), 2)) if texture is None else np.asarray(texture)
    corners = small.faces + before + 1
    return [
        f"o {name}",
        *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in small.vertices),
        *(f"vt {u:.6f} {v:.6f}" for u, v in texture[nearest]),
        *(f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in small.vertex_normals),
        f"usemtl {name}",
        *("f " + " ".join(f"{corner}/{corner}/{corner}" for corner in face) for face in corners),
    ]


def _copy_materials(library: Path, folder: Path) -> None:
    """A material library and the pictures that it names."""
    words = [line.split() for line in library.read_text(encoding="utf-8").splitlines()]
    pictures = {library.parent / word[-1] for word in words if word and word[0].startswith("map_")}
    for path in {library, *pictures}:
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
