"""A microwave oven whose door hangs on the left and is pulled open by a bar."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item, Joint, Site
from avavla_ray.simulators.libero.bundled.shapes import Box, Shape, Tube, Vector, moved

HINGE: Vector = (-0.1725, -0.088, 0.096)
# Mass and moment about the hinge.
DOOR_INERTIA = (0.26, 0.0083)

CASE: tuple[Shape, ...] = (
    Box((-0.1580, 0.0115, 0.0935), (0.0145, 0.0996, 0.0935), "charcoal"),
    Box((0.1180, 0.0115, 0.0935), (0.0545, 0.0996, 0.0935), "charcoal"),
    Box((-0.0400, 0.0955, 0.0935), (0.1035, 0.0155, 0.0935), "charcoal"),
    Box((-0.0400, -0.0040, 0.1775), (0.1035, 0.0840, 0.0095), "charcoal"),
    Box((-0.0400, -0.0040, 0.0120), (0.1035, 0.0840, 0.0120), "charcoal"),
    Box((0.1300, -0.0985, 0.0935), (0.0425, 0.0120, 0.0935), "black"),
    Box((-0.0400, 0.0790, 0.0960), (0.1030, 0.0010, 0.0720), "grey", solid=False),
    Box((-0.0400, -0.0040, 0.0243), (0.1030, 0.0830, 0.0003), "dark grey", solid=False),
    Box((0.1300, -0.1107, 0.1550), (0.0280, 0.0006, 0.0120), "sky", solid=False),
    *(
        Box((0.1300 + x, -0.1107, 0.1200 - z), (0.0075, 0.0006, 0.0055), "grey", solid=False)
        for x in (-0.019, 0.0, 0.019)
        for z in (0.0, 0.018, 0.036)
    ),
    Box((0.1300, -0.1115, 0.0210), (0.0310, 0.0016, 0.0090), "silver", solid=False),
)
# In the frame of the case; the bar stands 2 cm off the door, room enough for a finger.
DOOR: tuple[Shape, ...] = (
    Box((-0.0430, -0.1010, 0.0960), (0.1295, 0.0120, 0.0925)),
    Box((0.0650, -0.1420, 0.0960), (0.0090, 0.0090, 0.0730)),
    *(Box((0.0650, -0.1230, 0.0960 + z), (0.0090, 0.0110, 0.0090)) for z in (-0.064, 0.064)),
    Box((-0.0430, -0.1010, 0.0960), (0.1295, 0.0118, 0.0925), "black", solid=False),
    Box((-0.0530, -0.1010, 0.0960), (0.0860, 0.0124, 0.0620), "smoke", solid=False),
    Tube(
        (
            *((0.0650, -0.1130, 0.0310), (0.0650, -0.1420, 0.0330), (0.0650, -0.1420, 0.1590)),
            (0.0650, -0.1130, 0.1610),
        ),
        0.009,
        "silver",
    ),
)
MICROWAVE = Item(
    "articulated_objects/microwave.xml",
    Body(
        "object",
        CASE,
        (
            Site("top_side", (0.0, 0.01, 0.20), (0.12, 0.0835, 0.005)),
            Site("heating_region", (0.0, 0.01, 0.096), (0.12, 0.0835, 0.08)),
        ),
        children=(
            Body(
                "microdoorroot",
                moved(DOOR, (-HINGE[0], -HINGE[1], -HINGE[2])),
                joint=Joint("microjoint", "hinge", (0, 0, 1), (-2.094, 0), damping=0.5),
                inertia=DOOR_INERTIA,
                centre=HINGE,
            ),
        ),
    ),
    mass=None,
    bottom=-0.06,
    top=0.06,
    radius=0.015,
)
