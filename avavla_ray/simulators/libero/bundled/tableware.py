"""Bowl, plate, ramekin and basket: round things stand as rings of staves and show as surfaces of revolution."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item, Site
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Shape, solid_prism, solid_ring

BOTTOM, TOP, RADIUS = -0.06, 0.04, 0.025

# The foot is solid up to the inside: walls as thin as the original's let a dropped bowl through. It stays narrow below
# a plate's rim (16 mm), because published initial states put the two that close together.
BOWL: tuple[Shape, ...] = (
    *solid_prism("z", 0.0235, 0.0016, 0.0100),
    *solid_prism("z", 0.0265, 0.0090, 0.0178),
    *solid_prism("z", 0.0410, 0.0168, 0.0220),
    *solid_ring(18, radius=0.0471, centre=0.0337, half=(0.0013, 0.0093, 0.0187), lean=14.7),
    Lathe(
        (
            *((0, 0.0016), (0.0235, 0.0016), (0.029, 0.009), (0.0415, 0.0175), (0.0475, 0.028), (0.0538, 0.0521)),
            *((0.0508, 0.0521), (0.0445, 0.03), (0.036, 0.0195), (0.02, 0.0125), (0, 0.011)),
        ),
        "charcoal",
    ),
)

PLATE: tuple[Shape, ...] = (
    Box((0, 0, 0.0031), (0.0306, 0.0306, 0.0022)),
    *solid_ring(8, radius=0.0483, centre=0.007, half=(0.0025, 0.0285, 0.0191), lean=70.4),
    Lathe(
        (
            *((0, 0.0002), (0.036, 0.0002), (0.0655, 0.0128), (0.0655, 0.0150), (0.061, 0.0141)),
            *((0.037, 0.0058), (0, 0.0052)),
        ),
        "white",
        segments=24,
    ),
    Lathe(((0.0645, 0.0120), (0.0688, 0.0142), (0.0688, 0.0164), (0.0605, 0.0144)), "red", segments=24),
    Lathe(((0.052, 0.0110), (0.0545, 0.0119), (0.0545, 0.0123), (0.052, 0.0114)), "red", segments=24),
)

RAMEKIN: tuple[Shape, ...] = (
    *solid_prism("z", 0.0331, 0.0009, 0.0073),
    *solid_ring(16, radius=0.0382, centre=0.0217, half=(0.0026, 0.0095, 0.0209), lean=8.6),
    Lathe(
        (
            *((0, 0.0007), (0.0365, 0.0007), (0.0425, 0.039), (0.0385, 0.039)),
            *((0.0335, 0.0073), (0, 0.0073)),
        ),
        "silver",
    ),
    Lathe(((0.0425, 0.039), (0.0438, 0.0427), (0.0392, 0.0427), (0.0385, 0.039)), "white"),
)

# Cardboard walls that lean outwards a little; the opening is 14 cm square.
BASKET: tuple[Shape, ...] = (
    Box((0.0025, 0, 0.0131), (0.0766, 0.0724, 0.0088), "dark cardboard"),
    Box((-0.0727, 0, 0.0766), (0.0067, 0.0724, 0.0637), "cardboard", turn=("y", -4.3)),
    Box((0.0755, 0, 0.0766), (0.0067, 0.0724, 0.0637), "cardboard", turn=("y", 2.9)),
    Box((0, -0.0685, 0.0818), (0.0724, 0.0067, 0.0637), "cardboard", turn=("x", 2.6)),
    Box((0, 0.0691, 0.0818), (0.0724, 0.0067, 0.0637), "cardboard", turn=("x", -2.6)),
)
CONTAIN = Site("contain_region", (0, 0, 0.0718), (0.0611, 0.0611, 0.0695), quaternion=(0, 0, 0, 1))


def _item(name: str, body: Body, mass: float) -> Item:
    path = f"stable_scanned_objects/{name}/{name}.xml"
    return Item(path, body, mass=mass, bottom=BOTTOM, top=TOP, radius=RADIUS)


TABLEWARE: tuple[Item, ...] = (
    _item("akita_black_bowl", Body("object", BOWL), 0.0056),
    _item("plate", Body("object", PLATE), 0.0115),
    _item("glazed_rim_porcelain_ramekin", Body("object", RAMEKIN), 0.0097),
    _item("basket", Body("object", BASKET, sites=(CONTAIN,)), 0.136),
)
