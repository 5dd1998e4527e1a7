"""Fixtures: two cabinets with three drawers and a stove with one burner and a knob."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item, Joint, Material, Site
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Shape, solid_prism

WALNUT = Material("walnut", "textures/bundled_walnut.png")
WHITE_WOOD = Material("white_wood", "textures/bundled_white_wood.png")
# Drawers and knobs are as heavy to move as the originals', whatever their boxes would weigh.
MOVING_PART = (3.0, 1.0)


def _drawer(name: str, level: str, floor: float, handle: float, wood: str, inside: str) -> Body:
    """A drawer that slides along -y, 16 cm at most; `floor` is the height of its underside, `handle` of its bar."""
    middle = floor + 0.0325
    bar, back = -0.1016, -0.0835
    shapes: tuple[Shape, ...] = (
        Box((0.0033, -0.0752, middle - 0.0005), (0.1093, 0.0027, 0.0343), material=wood),
        Box((0.0033, -0.0688, middle), (0.1068, 0.0036, 0.0321)),
        Box((0.0033, 0.0908, middle), (0.1068, 0.0036, 0.0321), inside),
        Box((-0.1019, 0.0111, middle), (0.0026, 0.0815, 0.0316), inside),
        Box((0.1089, 0.0111, middle), (0.0026, 0.0815, 0.0316), inside),
        Box((0.0035, 0.0105, floor + 0.004), (0.107, 0.081, 0.004), material=wood),
        Box((-0.0028, bar, handle), (0.0445, 0.0077, 0.0082)),
        Box((0.0292, back, handle), (0.0051, 0.0106, 0.0055), "grey"),
        Box((-0.0356, back, handle), (0.0051, 0.0106, 0.0055), "grey"),
        Box((-0.0028, bar, handle), (0.0445, 0.0058, 0.0062), "silver", solid=False),
    )
    region = Site(
        f"{level}_region",
        (0.0033, 0.0113, middle + 0.0025),
        (0.0299, 0.0756, 0.1022),
        quaternion=(0.70711, 0, 0.70711, 0),
    )
    joint = Joint(f"{level}_level", "slide", (0, 1, 0), (-0.16, 0.01), damping=50)
    return Body(name, shapes, (region,), joint, MOVING_PART)


def _cabinet(name: str, wood: Material, inside: str) -> Item:
    """A cabinet faced with `wood`; `inside` is the colour of what only shows when a drawer is open."""
    face = wood.name
    carcass: tuple[Shape, ...] = (
        Box((0.004, 0.1094, 0.1139), (0.1191, 0.0023, 0.1058), material=face),
        Box((-0.1122, 0.0163, 0.1143), (0.0052, 0.0954, 0.1058), material=face),
        Box((0.119, 0.0163, 0.1143), (0.0052, 0.0954, 0.1058), material=face),
        Box((0.004, 0.0163, 0.0069), (0.1228, 0.0896, 0.0021), material=face),
        Box((0.0039, 0.0158, 0.2216), (0.1273, 0.0941, 0.0014), material=face),
        *(Box((0.0039, 0.0187, z), (0.1117, 0.0893, 0.0009), inside) for z in (0.0093, 0.0793, 0.1494)),
    )
    drawers = (
        _drawer("cabinet_top", "top", 0.1511, handle=0.1839, wood=face, inside=inside),
        _drawer("cabinet_middle", "middle", 0.0814, handle=0.1104, wood=face, inside=inside),
        _drawer("cabinet_bottom", "bottom", 0.0128, handle=0.0411, wood=face, inside=inside),
    )
    top_side = Site("top_side", (0.0035, 0.0157, 0.2215), (0.1253, 0.0944, 0.0015))
    return Item(
        f"articulated_objects/{name}.xml",
        Body("object", children=(Body("base", carcass, (top_side,), children=drawers),)),
        mass=None,
        bottom=-0.045,
        top=0.045,
        radius=0.045,
        materials=(wood,),
    )


HOB: tuple[Shape, ...] = (
    Box((0, 0, 0), (0.095, 0.095, 0.02), "silver"),
    Box((0, 0, 0.025), (0.095, 0.095, 0.0005)),
)
BURNER: tuple[Shape, ...] = (
    Lathe(((0, 0.02), (0.066, 0.02), (0.066, 0.0245), (0, 0.0245)), "black", segments=24),
    *(
        Lathe(((r - 0.003, 0.0245), (r + 0.003, 0.0245), (r, 0.0258)), "grey", segments=24)
        for r in (0.014, 0.029, 0.044, 0.059)
    ),
)
# A flat disc with a grip across it; the knob's frame is turned by 90 degrees, so the grip points away from the burner.
KNOB: tuple[Shape, ...] = (
    *solid_prism("z", 0.044, 0.0004, 0.0128),
    Box((0.0014, 0.0174, 0.0257), (0.0122, 0.0345, 0.0243)),
    Box((0.0012, -0.0245, 0.0246), (0.0122, 0.0165, 0.0175)),
    Lathe(((0, 0.0004), (0.046, 0.0004), (0.043, 0.0128), (0, 0.0128)), "charcoal"),
    Box((0.0014, 0.0035, 0.0257), (0.0115, 0.046, 0.022), "black", solid=False),
    Box((0.0014, 0.04, 0.0482), (0.003, 0.009, 0.0004), "red", solid=False),
)
STOVE = Item(
    "articulated_objects/flat_stove.xml",
    Body(
        "object",
        children=(
            Body(
                "base",
                children=(
                    Body(
                        "burner",
                        HOB,
                        (
                            Site("cook_region", (0, 0, 0), (0.075, 0.075, 0.0025)),
                            # LIBERO shows this glow while the stove is on.
                            Site("burner", (0, 0, 0.0262), (0.0625, 0.0005), kind="cylinder", rgba="0.9 0.05 0.05 1"),
                        ),
                        centre=(0.15, 0, 0),
                        children=(Body("burner_plate", BURNER),),
                    ),
                    Body(
                        "button",
                        KNOB,
                        joint=Joint("button", "hinge", (0, 0, 1), (-0.005, 2.1), damping=1),
                        inertia=MOVING_PART,
                        quaternion=(0.70711, 0, 0, 0.70711),
                    ),
                ),
            ),
        ),
    ),
    mass=None,
    bottom=-0.045,
    top=0.045,
    radius=0.045,
)
FURNITURE: tuple[Item, ...] = (
    _cabinet("wooden_cabinet", WALNUT, "dark walnut"),
    _cabinet("white_cabinet", WHITE_WOOD, "light grey"),
    STOVE,
)
