"""A frying pan and a white bowl."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.drinkware import cup
from avavla_ray.simulators.libero.bundled.mjcf import Body, Item
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Shape, Tube, moved, solid_prism, solid_ring

# The handle points along +x and rises; it is 25 mm wide and 12 mm thick.
FRYING_PAN: tuple[Shape, ...] = (
    *moved(
        (
            *solid_prism("z", 0.0690, 0.0009, 0.0125),
            *solid_ring(16, radius=0.0895, centre=0.0223, half=(0.0036, 0.0202, 0.0213), lean=31.1),
            cup(((0.074, 0.0003), (0.081, 0.008), (0.0985, 0.042)), wall=0.004, floor=0.006, colour="charcoal"),
            Lathe(((0, 0.0062), (0.062, 0.0062), (0.062, 0.0066), (0, 0.0066)), "dark grey", segments=24),
        ),
        (0.0055, 0.0, 0.0),
    ),
    Box((0.1190, 0.0, 0.0240), (0.0230, 0.0105, 0.0070), turn=("y", -28.0)),
    Box((0.1926, 0.0, 0.0441), (0.0665, 0.0127, 0.0062), turn=("y", -7.4)),
    Box((0.1926, 0.0, 0.0441), (0.0560, 0.0120, 0.0058), "black", solid=False, turn=("y", -7.4)),
    Box((0.2480, 0.0, 0.0513), (0.0120, 0.0145, 0.0062), "black", solid=False, turn=("y", -7.4)),
    Tube(((0.0950, 0.0, 0.0230), (0.1400, 0.0, 0.0375)), 0.0065, "silver"),
)

# As with the black bowl, the foot is solid up to the inside: thin staves would let through what drops in.
WHITE_BOWL: tuple[Shape, ...] = (
    *solid_prism("z", 0.0185, 0.0006, 0.0045),
    *solid_prism("z", 0.0265, 0.0040, 0.0090),
    *solid_prism("z", 0.0330, 0.0082, 0.0120),
    *solid_ring(16, radius=0.0357, centre=0.0226, half=(0.0012, 0.0079, 0.0127), lean=16.5),
    Lathe(
        (
            *((0, 0.0), (0.021, 0.0), (0.0285, 0.0055), (0.037, 0.0115), (0.0408, 0.0205), (0.0424, 0.0352)),
            *((0.0396, 0.0352), (0.0378, 0.0215), (0.033, 0.0125), (0.022, 0.0072), (0, 0.006)),
        ),
        "porcelain",
    ),
)


def _item(name: str, shapes: tuple[Shape, ...], mass: float) -> Item:
    path = f"stable_scanned_objects/{name}/{name}.xml"
    return Item(path, Body("object", shapes), mass=mass, bottom=-0.06, top=0.04, radius=0.025)


COOKWARE: tuple[Item, ...] = (
    _item("chefmate_8_frypan", FRYING_PAN, 0.0502),
    _item("white_bowl", WHITE_BOWL, 0.0021),
)
