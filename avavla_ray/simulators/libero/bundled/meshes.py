"""Triangles for the surfaces that MuJoCo has no primitive for: lathes and prisms."""

from __future__ import annotations

import itertools
import math

import numpy as np

from avavla_ray.simulators.libero.bundled.shapes import FRAMES, Lathe, Prism


def lathe_mesh(shape: Lathe) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) vertices and (F, 3) triangles, facing outwards."""
    first, second, height = FRAMES[shape.axis]
    rows: list[list[int]] = []
    vertices: list[np.ndarray] = []
    for radius, level in shape.profile:
        row = []
        for i in range(shape.segments if radius > 0 else 1):
            angle = math.radians(shape.phase) + 2 * math.pi * i / shape.segments
            vertex = np.zeros(3)
            vertex[first] = shape.offset[0] + radius * math.cos(angle)
            vertex[second] = shape.offset[1] + radius * shape.squash * math.sin(angle)
            vertex[height] = level
            row.append(len(vertices))
            vertices.append(vertex)
        rows.append(row)
    open_ended = shape.profile[0][0] > 0 or shape.profile[-1][0] > 0
    pairs = list(itertools.pairwise(rows)) + ([(rows[-1], rows[0])] if open_ended else [])
    faces = [face for low, high in pairs for face in _strip(low, high, shape.segments)]
    return np.array(vertices), np.array(faces)


def _strip(low: list[int], high: list[int], segments: int) -> list[tuple[int, int, int]]:
    """Triangles between two rings; a ring of one vertex is a point on the axis."""
    faces = []
    for i in range(segments):
        a, b = low[i % len(low)], low[(i + 1) % len(low)]
        c, d = high[i % len(high)], high[(i + 1) % len(high)]
        if a != b:
            faces.append((a, b, d))
        if c != d:
            faces.append((a, d, c))
    return faces


def prism_mesh(shape: Prism) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) vertices and (F, 3) triangles, facing outwards."""
    first, second, height = FRAMES[shape.axis]
    count = len(shape.polygon)
    vertices = np.zeros((2 * count, 3))
    for i, (a, b) in enumerate(shape.polygon):
        for index, level in ((i, shape.centre - shape.half), (count + i, shape.centre + shape.half)):
            vertices[index, [first, second, height]] = a, b, level
    faces = []
    for i in range(count):
        j = (i + 1) % count
        faces += [(i, j, count + j), (i, count + j, count + i)]
    for i in range(1, count - 1):
        faces += [(0, i + 1, i), (count, count + i, count + i + 1)]
    return vertices, np.array(faces)
