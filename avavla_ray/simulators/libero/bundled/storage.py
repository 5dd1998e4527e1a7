"""What things are put into or onto: a shelf, a wine rack, a desk caddy and a tray."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item, Material, Site
from avavla_ray.simulators.libero.bundled.shapes import Box, Prism, Shape

WALNUT = Material("walnut", "textures/bundled_walnut.png")
MAPLE = Material("maple", "textures/bundled_maple.png")
HALF_TURN = (0.0, 0.0, 1.0, 0.0)

SHELF: tuple[Shape, ...] = (
    Box((-0.1538, 0.0162, 0.1028), (0.0071, 0.0954, 0.1028), material="walnut"),
    Box((0.1631, 0.0162, 0.1028), (0.0071, 0.0954, 0.1028), material="walnut"),
    Box((0.0047, 0.1092, 0.1028), (0.1513, 0.0023, 0.1028), "dark walnut"),
    Box((0.0047, 0.0180, 0.0700), (0.1513, 0.0889, 0.0011), material="walnut"),
    Box((0.0050, 0.0164, 0.2082), (0.1758, 0.0953, 0.0025), material="walnut"),
)
SHELF_SITES = (
    Site("top_side", (0.005, 0.0157, 0.2069), (0.1756, 0.0944, 0.0015)),
    Site("top_region", (0.0054, 0.0169, 0.1367), (0.0674, 0.0856, 0.1509), quaternion=(0.70711, 0, -0.70711, 0)),
    Site("bottom_region", (0.0056, 0.0169, 0.0141), (0.0353, 0.0856, 0.1558), quaternion=(0.70711, 0, 0.70711, 0)),
)

# Two boards one above the other slope down to -y, each with a lip at its lower edge; a post on a foot carries them.
SLOPE = 31.3
RACK: tuple[Shape, ...] = (
    Box((0, -0.0061, 0.2512), (0.1344, 0.0789, 0.0045), material="maple", turn=("x", SLOPE)),
    Box((0, -0.0427, 0.1273), (0.1344, 0.0789, 0.0045), material="maple", turn=("x", SLOPE)),
    Box((0, -0.0748, 0.2207), (0.1322, 0.0011, 0.0087), "cork", turn=("x", SLOPE)),
    Box((0, -0.1091, 0.0974), (0.1322, 0.0011, 0.0087), "cork", turn=("x", SLOPE)),
    Box((0, 0.0089, 0.1703), (0.0076, 0.0091, 0.1616), "mahogany", turn=("x", -15.8)),
    Box((0, 0.0700, 0.0100), (0.0900, 0.0630, 0.0045), "mahogany", turn=("x", -7.5)),
    Box((0, -0.0650, 0.0100), (0.0900, 0.0650, 0.0045), "mahogany", turn=("x", 7.5)),
)
RACK_SITE = Site("top_region", (0, -0.08, 0.2174), (0.1009, 0.022, 0.0025), quaternion=(0.85491, -0.51877, 0, 0))

# From -y to +y: a tall square compartment, a pair (a low one in front, a high one behind), and one with sloping sides.
CADDY_HALF_DEPTH = 0.0708


def _sloping_side(y: float) -> tuple[Shape, ...]:
    """A side as high as the caddy's back and half as high as its front, in three steps for contact."""
    front, back = -CADDY_HALF_DEPTH, CADDY_HALF_DEPTH
    outline = ((0.0119, front), (0.0785, front), (0.166, 0.042), (0.166, back), (0.0119, back))
    steps = ((front, 0.0119, 0.0785), (0.001, 0.0785, 0.112), (0.032, 0.112, 0.15))
    solid = tuple(
        Box(((left + back) / 2, y, (low + high) / 2), ((back - left) / 2, 0.0036, (high - low) / 2))
        for left, low, high in steps
    )
    return (*solid, Prism(tuple((z, x) for z, x in outline), 0.0036, "charcoal", "y", centre=y))


CADDY: tuple[Shape, ...] = (
    Box((0, 0, 0.0076), (0.0708, 0.2169, 0.0062), "black"),
    Box((0, -0.068, 0.085), (0.0706, 0.0062, 0.0824), "charcoal"),
    Box((0, -0.2094, 0.085), (0.0706, 0.0062, 0.0824), "charcoal"),
    Box((0.0668, 0, 0.0868), (0.0040, 0.2098, 0.0815), "charcoal"),
    Box((-0.0016, 0, 0.0552), (0.0040, 0.0618, 0.0434), "charcoal"),
    Box((-0.0669, 0.0722, 0.0395), (0.0040, 0.1376, 0.0346), "charcoal"),
    Box((-0.0669, -0.1398, 0.0877), (0.0040, 0.0766, 0.0796), "charcoal"),
    *_sloping_side(0.0706),
    *_sloping_side(0.2086),
)
CADDY_SITES = (
    Site("right_contain_region", (0.0063, -0.1434, 0.0656), (0.062, 0.0622, 0.0605), quaternion=HALF_TURN),
    Site("left_contain_region", (0.0063, 0.1455, 0.0656), (0.062, 0.0622, 0.0605), quaternion=HALF_TURN),
    Site("back_contain_region", (0.0336, -0.0006, 0.0856), (0.0278, 0.0622, 0.0605), quaternion=HALF_TURN),
    Site(
        "front_contain_region",
        (-0.031, -0.0006, 0.0405),
        (0.0278, 0.036, 0.0622),
        quaternion=(0, 0, 0.70711, -0.70711),
    ),
)

# A crate of slats, longer along x; its short sides have a gap below a rail to carry it by.
TRAY: tuple[Shape, ...] = (
    Box((0.0070, -0.0042, 0.0035), (0.1430, 0.0780, 0.0045)),
    Box((-0.1392, -0.0042, 0.0299), (0.0023, 0.0773, 0.0246), material="maple"),
    Box((0.1532, -0.0042, 0.0299), (0.0023, 0.0773, 0.0246), material="maple"),
    Box((0.0070, -0.0845, 0.0312), (0.1440, 0.0031, 0.0290), material="maple"),
    Box((0.0070, 0.0758, 0.0312), (0.1440, 0.0031, 0.0290), material="maple"),
    Box((-0.1335, -0.0042, 0.0760), (0.0067, 0.0786, 0.0049), material="maple"),
    Box((0.1471, -0.0042, 0.0760), (0.0067, 0.0786, 0.0049), material="maple"),
    *(
        Box((x, y, 0.0408), (0.0062, 0.0055, 0.0392), material="maple")
        for x in (-0.1321, 0.1453)
        for y in (-0.0785, 0.0700)
    ),
    *(Box((0.0070, y, 0.0037), (0.1430, half, 0.0045), material="maple", solid=False) for y, half in (
        (-0.0642, 0.0209), (-0.0056, 0.0246), (0.0530, 0.0209),
    )),
    Box((0.0070, -0.0042, 0.0025), (0.1425, 0.0770, 0.0045), "cardboard", solid=False),
)  # fmt: skip
TRAY_SITE = Site(
    "contain_region", (0.0086, -0.0047, 0.0426), (0.0404, 0.0784, 0.1355), quaternion=(0.70711, 0, 0.70711, 0)
)


def _item(name: str, body: Body, mass: float | None, materials: tuple[Material, ...] = ()) -> Item:
    path = f"turbosquid_objects/{name}/{name}.xml"
    return Item(path, body, mass=mass, bottom=-0.06, top=0.04, radius=0.025, materials=materials)


STORAGE: tuple[Item, ...] = (
    _item("wine_rack", Body("object", RACK, (RACK_SITE,)), None, (MAPLE,)),
    _item("wooden_two_layer_shelf", Body("object", SHELF, SHELF_SITES), None, (WALNUT,)),
    _item("desk_caddy", Body("object", CADDY, CADDY_SITES), None),
    _item("wooden_tray", Body("object", TRAY, (TRAY_SITE,)), 0.0572, (MAPLE,)),
)
