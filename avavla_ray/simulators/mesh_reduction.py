"""Meshes with a part of their triangles: software renderers are bound by vertices, and robots have most of them."""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.errors import InputError

if TYPE_CHECKING:
    import trimesh

# Edges sharper than this stay sharp when normals are averaged, radians.
CREASE = 0.7


@dataclass(frozen=True)
class Coarseness:
    """How far a mesh is reduced.

    Attributes:
        reduction: one of so many triangles stays. fewest_faces: and at least so many.
        weld: vertices within a cell of this size become one first, metres, which joins open sheets: the reduction would
            keep their borders.
    """

    reduction: int
    fewest_faces: int
    weld: float = 0.0

    def faces(self, count: int) -> int:
        """That are wanted of so many."""
        return max(self.fewest_faces, count // self.reduction)


@functools.cache
def reduction_versions() -> str:
    """Of what reduces: files made by others are not to be taken for these.

    Raises:
        InputError: trimesh or fast-simplification is not installed.
    """
    packages = ("trimesh", "fast-simplification")
    try:
        return str([f"{package} {importlib.metadata.version(package)}" for package in packages])
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the fast renderer needs the package {error.name}: run 'pip install trimesh fast-simplification' or use "
            "--render reference"
        ) from error


def reduced(mesh: trimesh.Trimesh, wish: Coarseness) -> trimesh.Trimesh:
    """A mesh like this one with fewer triangles and with normals, without texture coordinates. Changes `mesh`."""
    import fast_simplification
    import trimesh

    wanted = wish.faces(len(mesh.faces))
    if wish.weld:
        mesh.vertices = np.round(mesh.vertices / wish.weld) * wish.weld
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    vertices, faces = mesh.vertices, mesh.faces
    if len(faces) > wanted:
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=wanted)
    return trimesh.graph.smooth_shade(trimesh.Trimesh(vertices, faces, process=False), angle=CREASE)
