"""The tables of living room and study, and what stands along the walls of kitchen, living room and study."""

from __future__ import annotations

import math

from avavla_ray.simulators.libero.bundled.mjcf import Body
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Prism, Shape, Tube

WOOD = "table_texture"


def _rounded(
    centre: tuple[float, float], half: tuple[float, float], corners: int = 32
) -> tuple[tuple[float, float], ...]:
    """A rectangle with round corners, halfway between a rectangle and an ellipse."""
    points = []
    for i in range(corners):
        angle = 2 * math.pi * (i + 0.5) / corners
        across, along = math.cos(angle), math.sin(angle)
        points.append(
            (
                centre[0] + half[0] * math.copysign(math.sqrt(abs(across)), across),
                centre[1] + half[1] * math.copysign(math.sqrt(abs(along)), along),
            )
        )
    return tuple(points)


# Three boxes side by side carry what lies on the table: boxes that overlapped would double its contacts.
COFFEE_TABLE = Body(
    "living_room_table",
    (
        Box((-0.2426, 0.0524, 0.4250), (0.5812, 0.6717, 0.0118)),
        Box((-0.2500, 0.8126, 0.4250), (0.4168, 0.0885, 0.0118)),
        Box((-0.2500, -0.7203, 0.4250), (0.4168, 0.1010, 0.0118)),
        Prism(_rounded((-0.239, 0.0415), (0.6, 0.9)), 0.0125, "", centre=0.4242, material=WOOD),
        Box((-0.239, 0.0415, 0.3900), (0.4400, 0.6800, 0.0220), "dark walnut", solid=False),
        *(
            Box((x, y, 0.1850), (0.0350, 0.0350, 0.1850), "dark walnut", solid=False)
            for x in (-0.62, 0.14)
            for y in (-0.58, 0.66)
        ),
    ),
)
DESK = Body(
    "study_table",
    (
        Box((0, 0, 0.8493), (0.6895, 1.3927, 0.0358), material=WOOD),
        *(
            Box((x, y, 0.4060), (0.0300, 0.0500, 0.4060), "walnut", solid=False)
            for x in (-0.5, 0.5)
            for y in (-0.7, 0.71)
        ),
        *(Box((0, y, 0.0253), (0.5130, 0.0500, 0.0215), "walnut", solid=False) for y in (-0.7, 0.71)),
    ),
)

KITCHEN: tuple[Shape, ...] = (
    Box((-1.66, 0, 0.44), (0.29, 1.8, 0.44), "cupboard green", solid=False),
    Box((-1.65, 0, 0.90), (0.31, 1.8, 0.02), "grey", solid=False),
    *(Box((-1.368, y, 0.44), (0.003, 0.006, 0.42), "black", solid=False) for y in (-1.2, -0.6, 0.0, 0.6, 1.2)),
    *(Tube(((-1.355, y - 0.08, 0.78), (-1.355, y + 0.08, 0.78)), 0.008, "silver") for y in (-0.9, -0.3, 0.3, 0.9)),
    Box((-1.98, 0, 1.20), (0.008, 1.8, 0.28), "light grey", solid=False),
    Box((-1.80, 0, 1.98), (0.16, 1.8, 0.48), "cupboard green", solid=False),
    Box((-1.72, 0, 1.55), (0.22, 0.35, 0.06), "silver", solid=False),
    Box((-1.65, 0, 0.925), (0.25, 0.36, 0.008), "black", solid=False),
    Lathe(
        ((0, 0.933), (0.115, 0.933), (0.125, 1.05), (0.118, 1.05), (0.108, 0.945), (0, 0.945)),
        "silver",
        offset=(-1.56, 0.22),
    ),
    Lathe(((0, 0.92), (0.06, 0.92), (0.075, 1.10), (0.03, 1.17), (0, 1.17)), "porcelain", offset=(-1.78, -0.72)),
    Box((-1.75, -2.40, 0.89), (0.22, 0.43, 0.89), "silver", solid=False),
    Tube(((-1.51, -2.05, 0.70), (-1.51, -2.05, 1.50)), 0.012, "grey"),
)

LIVING_ROOM: tuple[Shape, ...] = (
    Box((-1.72, 0, 0.22), (0.19, 1.16, 0.22), "light grey", solid=False),
    *(Box((-1.72, y, 1.02), (0.19, 0.20, 0.58), "light grey", solid=False) for y in (-0.96, 0.96)),
    Box((-1.88, 0, 1.02), (0.02, 0.76, 0.58), "porcelain", solid=False),
    Box((-1.78, 0, 0.84), (0.02, 0.56, 0.33), "black", solid=False),
    Box((-1.78, 0, 0.475), (0.08, 0.16, 0.035), "black", solid=False),
    *(Box((-1.527, y, 0.22), (0.003, 0.004, 0.20), "grey", solid=False) for y in (-0.58, 0.0, 0.58)),
    *(Box((-1.527, y, 0.80), (0.003, 0.18, 0.004), "grey", solid=False) for y in (-0.96, 0.96)),
    *(Tube(((-1.52, side * 0.80, 0.90), (-1.52, side * 0.80, 1.10)), 0.008, "silver") for side in (-1, 1)),
)

BOOK_SPINES = ("dark red", "blue", "mustard", "bottle green", "charcoal", "sky", "mahogany")
STUDY: tuple[Shape, ...] = (
    Box((-1.86, -0.995, 0.90), (0.01, 0.61, 0.895), "light grey", solid=False),
    *(Box((-1.71, y, 0.90), (0.155, 0.012, 0.895), "porcelain", solid=False) for y in (-1.595, -0.995, -0.395)),
    *(Box((-1.71, -0.995, z), (0.155, 0.60, 0.012), "porcelain", solid=False) for z in (0.05, 0.48, 0.91, 1.34, 1.78)),
    *(
        Box((-1.74, -0.50 - 0.055 * i, z + 0.012 + 0.13), (0.09, 0.022, 0.13 - 0.01 * (i % 3)), colour, solid=False)
        for z, first in ((0.91, 0), (0.48, 3))
        for i, colour in enumerate(BOOK_SPINES[first:] + BOOK_SPINES[:first])
    ),
    Box((-1.97, 0.50, 1.49), (0.02, 0.49, 0.49), "walnut", solid=False),
    Box((-1.945, 0.50, 1.49), (0.006, 0.44, 0.44), "sky", solid=False),
    Lathe(((0, 0), (0.11, 0), (0.16, 0.30), (0.135, 0.30), (0, 0.27)), "porcelain", offset=(-1.82, 0.56)),
    *(
        Tube(((-1.82, 0.56, 0.27), (-1.82 + 0.02 * i, 0.56 + 0.09 * i, 0.62 + 0.06 * i)), 0.018, "cork")
        for i in (-1, 0, 1)
    ),
    *(
        Box(
            (-1.80 + 0.02 * i, 0.56 + 0.09 * i + side * 0.10, 0.78 + 0.06 * i + lift),
            (0.022, 0.004, 0.16),
            "leaf green",
            solid=False,
            turn=("x", -side * lean),
        )
        for i in (-1, 0, 1)
        for side, lean, lift in ((-1, 42.0, 0.0), (1, 42.0, 0.0), (-0.4, 14.0, 0.07), (0.4, 14.0, 0.07))
    ),
)
