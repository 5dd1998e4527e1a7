"""Triangles for the surfaces that MuJoCo has no primitive for: lathes, prisms and bent tubes.

They are few: pictures are often drawn by a processor, and MuJoCo's own capsule has a thousand.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from avavla_ray.simulators.libero.bundled.shapes import FRAMES, Lathe, Prism, Tube

TUBE_SIDES = 8


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
    return vertices, np.array(_wall(0, count) + _ends(0, count, count))


def tube_mesh(shape: Tube) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) vertices and (F, 3) triangles, facing outwards."""
    points = np.array(shape.points, dtype=float)
    steps = np.diff(points, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    headings = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    # Normal of the plane that the tube lies in; a straight one lies in many.
    candidates = [np.cross(steps[0], other) for other in (*steps[1:], *np.eye(3))]
    normal = next(vector for vector in candidates if np.linalg.norm(vector) > 0.05)
    normal = normal / np.linalg.norm(normal)
    angles = 2 * np.pi * np.arange(TUBE_SIDES) / TUBE_SIDES
    height = np.outer(np.sin(angles), normal)
    # A ring at a bend lies across both bars, so it is longer there.
    lengths = 1 / np.einsum("ni,ni->n", headings, np.concatenate([steps, steps[-1:]]))
    rings = [
        point + shape.radius * (np.outer(np.cos(angles), length * np.cross(normal, heading)) + height)
        for point, heading, length in zip(points, headings, lengths, strict=True)
    ]
    faces = [face for ring in range(len(points) - 1) for face in _wall(ring * TUBE_SIDES, TUBE_SIDES)]
    return np.concatenate(rings), np.array(faces + _ends(0, (len(points) - 1) * TUBE_SIDES, TUBE_SIDES))


def _wall(first: int, count: int) -> list[tuple[int, int, int]]:
    """Triangles between a ring of `count` vertices that starts at `first` and the ring after it."""
    faces = []
    for i in range(count):
        a, b = first + i, first + (i + 1) % count
        faces += [(a, b, b + count), (a, b + count, a + count)]
    return faces


def _ends(low: int, high: int, count: int) -> list[tuple[int, int, int]]:
    """Triangles over the first ring, which starts at `low`, and over the last, which starts at `high`."""
    faces = []
    for i in range(1, count - 1):
        faces += [(low, low + i + 1, low + i), (high, high + i, high + i + 1)]
    return faces
