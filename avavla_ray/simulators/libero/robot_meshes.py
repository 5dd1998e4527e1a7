"""A low-poly robot, made from robosuite's own meshes at first use and kept in the cache.

The robot has 135,000 of the scene's triangles and a software renderer is bound by vertices. Only meshes that are
nothing but looks are replaced: no contact, no mass (LIBERO's models take inertia from collision geoms alone). What the
camera in the hand sees from nearby stays finer than the rest, of which a pixel of the scene camera covers 1 cm.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, cache_folder


@dataclass(frozen=True)
class Coarseness:
    """How far a mesh is reduced.

    Attributes:
        reduction: one of so many triangles stays. fewest_faces: and at least so many.
        weld: vertices within a cell of this size become one first, metres. The pedestal is made of hundreds of open
            sheets, whose borders the reduction would keep.
    """

    reduction: int
    fewest_faces: int
    weld: float = 0.0


NEAR, FAR = Coarseness(8, 300), Coarseness(24, 120, 0.005)
NEAR_THE_HAND = ("hand", "finger", "link7")  # how their files' names begin
# Edges sharper than this stay sharp when normals are averaged, radians.
CREASE = 0.7


@functools.cache
def _versions() -> str:
    packages = ("trimesh", "fast-simplification")
    try:
        return str([f"{package} {importlib.metadata.version(package)}" for package in packages])
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the fast renderer needs the package {error.name}: run 'make setup' or use --render reference"
        ) from error


def coarseness(source: Path) -> Coarseness:
    """How far mesh `source` may be reduced."""
    return NEAR if source.stem.startswith(NEAR_THE_HAND) else FAR


@functools.cache
def reduced_mesh(source: Path) -> Path:
    """A copy of mesh `source` with a part of its triangles (`coarseness`); `source` itself when it is that small.

    Each copy is one file, renamed into place when it is whole, so that processes may build it at the same time.

    Raises:
        InputError: trimesh or fast-simplification is not installed.
    """
    wish = coarseness(source)
    recipe = f"{wish} {CREASE} {_versions()}"
    key = hashlib.sha256(recipe.encode() + source.read_bytes()).hexdigest()[:20]
    folder = cache_folder() / "robot-meshes"
    target, too_small = folder / f"{source.stem}-{key}.obj", folder / f"{source.stem}-{key}.keep"
    if too_small.exists():
        return source
    if not target.exists():
        import fast_simplification
        import trimesh

        mesh = trimesh.load(source, force="mesh")
        wanted = max(wish.fewest_faces, len(mesh.faces) // wish.reduction)
        if len(mesh.faces) <= wanted:
            with atomic_path(too_small) as temporary:
                temporary.touch()
            return source
        if wish.weld:
            mesh.vertices = np.round(mesh.vertices / wish.weld) * wish.weld
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        mesh.update_faces(mesh.nondegenerate_faces())
        vertices, faces = mesh.vertices, mesh.faces
        if len(faces) > wanted:
            vertices, faces = fast_simplification.simplify(vertices, faces, target_count=wanted)
        shaded = trimesh.graph.smooth_shade(trimesh.Trimesh(vertices, faces, process=False), angle=CREASE)
        with atomic_path(target) as temporary:
            temporary.write_text(shaded.export(file_type="obj", include_normals=True))
    return target


def with_reduced_robot(xml: str) -> str:
    """The MuJoCo model `xml` with every purely visual mesh of robosuite's own assets replaced by its reduced copy."""
    spec = importlib.util.find_spec("robosuite")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assets = Path(spec.submodule_search_locations[0]) / "models" / "assets"
    model = ET.fromstring(xml)
    looks = {"group": "1", "contype": "0", "conaffinity": "0"}
    solid = {geom.get("mesh") for geom in model.iter("geom") if any(geom.get(k) != v for k, v in looks.items())}
    textured = {material.get("name") for material in model.iter("material") if material.get("texture")}
    # Reduction drops texture coordinates.
    textured_meshes = {geom.get("mesh") for geom in model.iter("geom") if geom.get("material") in textured}
    for mesh in model.iter("mesh"):
        source = Path(mesh.get("file", ""))
        if source.is_relative_to(assets) and mesh.get("name") not in solid | textured_meshes:
            mesh.set("file", str(reduced_mesh(source)))
    return ET.tostring(model, encoding="unicode")
