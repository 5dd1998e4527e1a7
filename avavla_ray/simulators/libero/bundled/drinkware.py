"""Mugs, a moka pot and a wine bottle: what stands upright and is gripped by its rim, its handle or its body.

The mugs' frames lie in the middle of mug and handle together, as the originals' do. Their lower halves are solid, so
that few boxes carry them; the rims are as thick as the originals', and fingers reach into them as deep as they need.
"""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item
from avavla_ray.simulators.libero.bundled.shapes import (
    Box,
    Lathe,
    Shape,
    Tube,
    moved,
    solid_prism,
    solid_ring,
)

Outline = tuple[tuple[float, float], ...]


def cup(outline: Outline, wall: float, floor: float, colour: str) -> Lathe:
    """What is seen of a cup: (radius, height) points up its outside, its wall's thickness, its inside's floor."""
    inside = tuple((radius - wall, height) for radius, height in reversed(outline) if height > floor + 0.002)
    return Lathe(((0, outline[0][1]), *outline, *inside, (inside[-1][0] - 0.003, floor), (0, floor)), colour)


def _handle(boxes: tuple[tuple[float, float, float, float], ...], half: tuple[float, float]) -> tuple[Box, ...]:
    """Invisible boxes of a handle in the xz plane: x, z, half length and angle from upright of each.

    `half` is their half thickness and half width.
    """
    thick, wide = half
    return tuple(Box((x, 0, z), (thick, wide, length), turn=("y", angle)) for x, z, length, angle in boxes)


def _loop(points: Outline, radius: float, colour: str) -> Tube:
    """What is seen of a handle: a bar through (x, z) points."""
    return Tube(tuple((x, 0.0, z) for x, z in points), radius, colour)


PORCELAIN_MUG: tuple[Shape, ...] = (
    *moved(
        (
            *solid_prism("z", 0.0255, 0.0024, 0.0160),
            *solid_prism("z", 0.0370, 0.0152, 0.0440),
            *solid_ring(8, radius=0.0415, centre=0.0758, half=(0.0024, 0.0182, 0.0326), lean=0.0),
            cup(
                (
                    *((0.027, 0.0006), (0.034, 0.006), (0.0395, 0.022), (0.044, 0.043)),
                    *((0.0462, 0.07), (0.0468, 0.111)),
                ),
                wall=0.0048,
                floor=0.02,
                colour="porcelain",
            ),
        ),
        (0.0155, -0.0018, 0.0),
    ),
    *_handle(
        ((-0.0595, 0.056, 0.0198, 0.0), (-0.0416, 0.0286, 0.0198, -61.3), (-0.0463, 0.0834, 0.0198, 55.3)),
        (0.0038, 0.008),
    ),
    _loop(
        (
            *((-0.0265, 0.0905), (-0.045, 0.088), (-0.0575, 0.074), (-0.0595, 0.053), (-0.05, 0.035)),
            (-0.0255, 0.0255),
        ),
        0.0055,
        "porcelain",
    ),
)
RED_MUG: tuple[Shape, ...] = (
    *moved(
        (
            *solid_prism("z", 0.0225, -0.0019, 0.0130),
            *solid_prism("z", 0.0245, 0.0125, 0.0400),
            *solid_ring(8, radius=0.0310, centre=0.0830, half=(0.0035, 0.0157, 0.0478), lean=6.5),
            cup(
                ((0.033, 0.0), (0.0355, 0.006), (0.038, 0.06), (0.0405, 0.105), (0.043, 0.1325)),
                wall=0.005,
                floor=0.01,
                colour="mug red",
            ),
        ),
        (-0.0185, -0.0010, 0.0),
    ),
    *_handle(
        ((0.0368, 0.0504, 0.0342, 42.6), (0.0547, 0.0944, 0.0192, -5.9), (0.0346, 0.1116, 0.0182, 81.8)),
        (0.0028, 0.0072),
    ),
    _loop(
        (
            *((0.0195, 0.111), (0.043, 0.112), (0.055, 0.103), (0.0565, 0.088), (0.050, 0.068)),
            *((0.034, 0.047), (0.016, 0.032)),
        ),
        0.0055,
        "mug red",
    ),
)
YELLOW_MUG: tuple[Shape, ...] = (
    *moved(
        (
            *solid_prism("z", 0.0280, 0.0000, 0.0120),
            *solid_prism("z", 0.0360, 0.0112, 0.0250),
            *solid_ring(12, radius=0.0428, centre=0.0620, half=(0.0041, 0.0129, 0.0408), lean=7.5),
            cup(
                ((0.0285, 0.0002), (0.037, 0.0075), (0.0405, 0.02), (0.0455, 0.06), (0.0505, 0.103)),
                wall=0.0075,
                floor=0.012,
                colour="ivory",
            ),
            Lathe(((0.0507, 0.0985), (0.0512, 0.1045), (0.0425, 0.1045), (0.0425, 0.0985)), "honey"),
        ),
        (-0.0182, -0.0006, 0.0),
    ),
    *_handle(
        ((0.0641, 0.056, 0.0292, 0.0), (0.0402, 0.0263, 0.0249, 101.8), (0.0464, 0.0796, 0.0217, 83.7)),
        (0.0041, 0.0088),
    ),
    _loop(((0.027, 0.0775), (0.0625, 0.0815), (0.0645, 0.032), (0.022, 0.0235)), 0.0058, "honey"),
)

# An octagonal pot with a waist, a black handle at +y and a spout at -y; the hand closes over its 69 mm.
MOKA_POT: tuple[Shape, ...] = (
    *solid_prism("z", 0.0345, -0.0662, 0.0670),
    Box((0, -0.0400, 0.0440), (0.0140, 0.0100, 0.0200)),
    Box((0, 0.0416, 0.0525), (0.0102, 0.0072, 0.0137)),
    Box((0, 0.0583, 0.0603), (0.0066, 0.0141, 0.0070)),
    Box((0, 0.0750, 0.0320), (0.0066, 0.0068, 0.0310), turn=("x", -20.0)),
    Box((0, -0.0013, 0.0743), (0.0052, 0.0060, 0.0114)),
    Lathe(
        ((0, -0.0665), (0.0396, -0.0665), (0.0325, -0.012), (0.0325, -0.0015), (0, -0.0015)),
        "silver",
        segments=8,
        phase=22.5,
    ),
    Lathe(((0, -0.0015), (0.0345, -0.0015), (0.0345, 0.0035), (0, 0.0035)), "grey", segments=16),
    Lathe(
        ((0, 0.0035), (0.033, 0.0035), (0.0415, 0.06), (0.0395, 0.0625), (0.007, 0.0712), (0, 0.0712)),
        "bright silver",
        segments=8,
        phase=22.5,
    ),
    Box((0, -0.0440, 0.0480), (0.0055, 0.0140, 0.0085), "bright silver", solid=False, turn=("x", -38.0)),
    Lathe(
        ((0, 0.068), (0.005, 0.068), (0.008, 0.078), (0.0075, 0.0855), (0, 0.0865)),
        "black",
        segments=12,
    ),
    Tube(
        ((0, 0.036, 0.053), (0, 0.055, 0.0605), (0, 0.074, 0.056), (0, 0.0775, 0.043), (0, 0.058, -0.003)),
        0.0066,
        "black",
    ),
)

# A short bottle that stands on a 37 mm octagon and lies on rack or shelf on its side.
WINE_BOTTLE: tuple[Shape, ...] = (
    *solid_prism("z", 0.0187, 0.0011, 0.0680),
    Box((0, 0, 0.0790), (0.0118, 0.0118, 0.0111)),
    Box((0, 0, 0.1220), (0.0070, 0.0070, 0.0361)),
    Lathe(
        (
            *((0, 0.0002), (0.0205, 0.0002), (0.0216, 0.003), (0.0216, 0.058), (0.0175, 0.073)),
            *((0.0108, 0.092), (0.0078, 0.108), (0.0078, 0.149), (0, 0.149)),
        ),
        "bottle green",
    ),
    Lathe(((0.0219, 0.012), (0.0219, 0.052), (0.021, 0.052), (0.021, 0.012)), "cream"),
    Lathe(((0.0222, 0.024), (0.0222, 0.034), (0.021, 0.034), (0.021, 0.024)), "dark red"),
    Lathe(((0.0086, 0.13), (0.0082, 0.151), (0.007, 0.151), (0.007, 0.13)), "dark red", segments=12),
    Lathe(((0, 0.149), (0.0072, 0.149), (0.0072, 0.1585), (0, 0.1585)), "cork", segments=12),
)


def _item(name: str, shapes: tuple[Shape, ...], mass: float, gentle: bool = False) -> Item:
    path = f"turbosquid_objects/{name}/{name}.xml"
    return Item(path, Body("object", shapes), mass=mass, bottom=-0.06, top=0.04, radius=0.025, gentle=gentle)


DRINKWARE: tuple[Item, ...] = (
    _item("porcelain_mug", PORCELAIN_MUG, 0.0165),
    _item("red_coffee_mug", RED_MUG, 0.0294),
    _item("white_yellow_mug", YELLOW_MUG, 0.0309),
    _item("moka_pot", MOKA_POT, 0.0682),
    _item("wine_bottle", WINE_BOTTLE, 0.0154, gentle=True),
)
