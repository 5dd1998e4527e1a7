"""The primitives of which bundled objects are made. Lengths in metres, angles in degrees, body frame.

A `Box` may be solid, visible or both. The others (`Lathe`, `Prism`, `Tube`) are only ever looked at: contact is always
with boxes, which MuJoCo handles fastest and which stand still on a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Vector = tuple[float, float, float]
Axis = Literal["x", "y", "z"]

SHORTER = 0.0004
# The axes that span the plane across an axis, in right-handed order: (across, across, along).
FRAMES: dict[Axis, tuple[int, int, int]] = {"x": (1, 2, 0), "y": (2, 0, 1), "z": (0, 1, 2)}


@dataclass(frozen=True)
class Box:
    """A cuboid.

    Attributes:
        centre, half: its middle and half extents before turning.
        colour: key of `colours.COLOURS`; empty means invisible.
        solid: takes part in contacts and carries mass.
        turn, lean: axis and angle of rotations about its own centre; the lean comes first.
        material: name of a texture's material, instead of a colour.
    """

    centre: Vector
    half: Vector
    colour: str = ""
    solid: bool = True
    turn: tuple[Axis, float] | None = None
    lean: tuple[Axis, float] | None = None
    material: str = ""


@dataclass(frozen=True)
class Lathe:
    """A surface of revolution about `axis`.

    Attributes:
        profile: (radius, height along the axis) from the bottom up on the outside; a profile that ends on the axis
            is closed by itself, any other is closed back to its first point (a ring, a bowl's wall).
        squash: scale of the second of the two directions across the axis (a bottle that is flatter than wide).
        offset: of the axis, across it.
        phase: angle of the first of the segments' corners (few segments make a faceted pot).
    """

    profile: tuple[tuple[float, float], ...]
    colour: str
    axis: Axis = "z"
    squash: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    segments: int = 20
    phase: float = 0.0


@dataclass(frozen=True)
class Prism:
    """A convex polygon swept along `axis` from `centre - half` to `centre + half`; corners counter-clockwise.

    `material` names a texture's material, to be used instead of a colour.
    """

    polygon: tuple[tuple[float, float], ...]
    half: float
    colour: str
    axis: Axis = "z"
    centre: float = 0.0
    material: str = ""


@dataclass(frozen=True)
class Tube:
    """A bar of `radius` through `points` in one plane: a handle."""

    points: tuple[Vector, ...]
    radius: float
    colour: str


Shape: TypeAlias = Box | Lathe | Prism | Tube


def plus(a: Vector, b: Vector) -> Vector:
    """The sum of two vectors."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def moved(shapes: Iterable[Shape], by: Vector) -> tuple[Shape, ...]:
    """`shapes` shifted, for objects whose frame is not where they are built most easily."""
    result: list[Shape] = []
    for shape in shapes:
        if isinstance(shape, Box):
            result.append(replace(shape, centre=plus(shape.centre, by)))
        elif isinstance(shape, Tube):
            result.append(replace(shape, points=tuple(plus(point, by) for point in shape.points)))
        else:
            first, second, height = (by[index] for index in FRAMES[shape.axis])
            if isinstance(shape, Lathe):
                profile = tuple((radius, level + height) for radius, level in shape.profile)
                offset = (shape.offset[0] + first, shape.offset[1] + second)
                result.append(replace(shape, profile=profile, offset=offset))
            else:
                polygon = tuple((a + first, b + second) for a, b in shape.polygon)
                result.append(replace(shape, polygon=polygon, centre=shape.centre + height))
    return tuple(result)


def along(axis: Axis, first: float, second: float, height: float) -> Vector:
    """The point at (first, second) across `axis` and `height` along it."""
    point = [0.0, 0.0, 0.0]
    for index, value in zip(FRAMES[axis], (first, second, height), strict=True):
        point[index] = value
    return (point[0], point[1], point[2])


def solid_prism(axis: Axis, radius: float, low: float, high: float) -> tuple[Box, ...]:
    """Invisible solid boxes whose union is the regular octagonal prism of that inner radius.

    Two of the four are a hair shorter: the others reach all eight corners of an end, and half as many boxes touch
    what the prism stands on, which halves the contacts to solve.
    """
    face = radius * math.tan(math.pi / 8)
    centre = along(axis, 0.0, 0.0, (high + low) / 2)
    return tuple(
        Box(centre, along(axis, radius, face, (high - low) / 2 - (i % 2) * SHORTER), turn=(axis, 45.0 * i))
        for i in range(4)
    )


def solid_ring(
    count: int, radius: float, centre: float, half: Vector, lean: float, start: float = 90.0
) -> tuple[Box, ...]:
    """Invisible solid staves around z, the first at angle `start`, each leaning outwards by `lean` degrees.

    Args:
        radius: of the staves' middle. centre: their height.
        half: half extents of an upright stave: thickness, width, height.
    """
    staves = []
    for i in range(count):
        angle = start + 360.0 * i / count
        x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        staves.append(Box((radius * x, radius * y, centre), half, turn=("z", angle), lean=("y", lean)))
    return tuple(staves)


def volume(shapes: tuple[Shape, ...]) -> float:
    """Of the solid boxes, counting overlaps as often as MuJoCo does; cubic metres."""
    return sum(8 * math.prod(shape.half) for shape in shapes if isinstance(shape, Box) and shape.solid)


def quaternion(box: Box) -> tuple[float, float, float, float]:
    """(w, x, y, z) of the box's turn, applied after its lean."""
    result = (1.0, 0.0, 0.0, 0.0)
    for rotation in (box.turn, box.lean):
        if rotation is None:
            continue
        axis, angle = rotation
        half = math.radians(angle) / 2
        factor = [math.cos(half), 0.0, 0.0, 0.0]
        factor[1 + "xyz".index(axis)] = math.sin(half)
        result = _product(result, (factor[0], factor[1], factor[2], factor[3]))
    return result


def _product(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )
