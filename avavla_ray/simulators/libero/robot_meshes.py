"""A low-poly robot, made from robosuite's own meshes at first use and kept in the cache.

The robot has 135,000 of the scene's triangles and a software renderer is bound by vertices. Only meshes that are
nothing but looks are replaced: no contact, no mass (LIBERO's models take inertia from collision geoms alone). What the
camera in the hand sees from nearby stays finer than the rest, of which a pixel of the scene camera covers 1 cm.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

from avavla_ray.files import atomic_path, cache_folder
from avavla_ray.simulators.mesh_reduction import CREASE, Coarseness, reduced, reduction_versions

# The pedestal is made of hundreds of open sheets.
NEAR, FAR = Coarseness(8, 300), Coarseness(24, 120, 0.005)
NEAR_THE_HAND = ("hand", "finger", "link7")  # how their files' names begin


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
    recipe = f"{wish} {CREASE} {reduction_versions()}"
    key = hashlib.sha256(recipe.encode() + source.read_bytes()).hexdigest()[:20]
    folder = cache_folder() / "robot-meshes"
    target, too_small = folder / f"{source.stem}-{key}.obj", folder / f"{source.stem}-{key}.keep"
    if too_small.exists():
        return source
    if not target.exists():
        import trimesh

        mesh = trimesh.load(source, force="mesh")
        if len(mesh.faces) <= wish.faces(len(mesh.faces)):
            with atomic_path(too_small) as temporary:
                temporary.touch()
            return source
        shaded = reduced(mesh, wish)
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
