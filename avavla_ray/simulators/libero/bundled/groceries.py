"""The products on the shelf: cans, cartons, bottles and packets, one row each.

Outer dimensions, masses and placement sites are those of the originals; the decomposition, the surfaces and the colours
are ours. Cans, cartons and bottles stand along y, packets and the barbecue sauce along z.
"""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item
from avavla_ray.simulators.libero.bundled.shapes import Box, Lathe, Prism, Shape, moved, solid_prism

# These start inside a neighbour in some published states.
GENTLE = ("cream_cheese", "chocolate_pudding")


def _item(name: str, shapes: tuple[Shape, ...], mass: float, bottom: float, top: float, radius: float) -> Item:
    path = f"stable_hope_objects/{name}/{name}.xml"
    body = Body("object", shapes)
    return Item(path, body, mass=mass, bottom=bottom, top=top, radius=radius, gentle=name in GENTLE)


def _can(label: str, band: str) -> tuple[Shape, ...]:
    """65 mm wide, 75 mm tall, along y: silver ends, a label, and a band and a mark on the lid in one colour."""
    low, high = -0.0382, 0.037
    return (
        *solid_prism("y", 0.0312, low, high),
        Lathe(((0, low), (0.0315, low), (0.0315, -0.033), (0, -0.033)), "silver", "y"),
        Lathe(((0, -0.033), (0.0325, -0.033), (0.0325, 0.0315), (0, 0.0315)), label, "y"),
        Lathe(((0.0328, -0.012), (0.0328, 0.008), (0.032, 0.008), (0.032, -0.012)), band, "y"),
        Lathe(
            ((0, 0.0315), (0.0315, 0.0315), (0.0315, high), (0.029, high), (0.0285, 0.0345), (0, 0.0345)),
            "silver",
            "y",
        ),
        Lathe(((0, 0.0345), (0.015, 0.0345), (0.015, 0.035), (0, 0.035)), band, "y"),
    )


def _carton(body: str, panel: str, roof: str, cap: str) -> tuple[Shape, ...]:
    """A gable-top carton, 52 mm square and 131 mm tall, along y."""
    half, low, eaves, ridge = 0.0262, -0.0698, 0.0398, 0.0585
    middle = (low + eaves) / 2
    cap_at = 0.0492
    return (
        Box((0, middle, 0), (half, (eaves - low) / 2, half), body),
        Box((0, 0.0478, 0.0135), (half, 0.0022, 0.0138), turn=("x", 41.0)),
        Box((0, 0.0478, -0.0135), (half, 0.0022, 0.0138), turn=("x", -41.0)),
        Box((0, ridge, 0), (half, 0.0029, 0.0032), roof),
        Prism(((eaves, -half), (ridge, 0.0), (eaves, half)), half, roof, "x"),
        Box((0, middle - 0.008, 0), (half + 0.0004, 0.025, half + 0.0004), panel, solid=False),
        Lathe(
            ((0, cap_at - 0.004), (0.0075, cap_at - 0.004), (0.0075, cap_at + 0.009), (0, cap_at + 0.009)),
            cap,
            "y",
            offset=(0.0125, 0.0),
            segments=10,
        ),
    )


def _packet(half: tuple[float, float, float], body: str, panel: str, mark: str) -> tuple[Shape, ...]:
    """A flat box lying on its largest face, with a printed panel above and below and a mark in it."""
    x, y, z = half
    return (
        Box((0, 0, 0), half, body),
        Box((0, 0, 0), (x * 0.80, y * 0.72, z + 0.0003), panel, solid=False),
        Lathe(
            ((0, -z - 0.0006), (x * 0.5, -z - 0.0006), (x * 0.5, z + 0.0006), (0, z + 0.0006)),
            mark,
            squash=0.52 * y / (x * 0.5),
        ),
    )


def _squeeze_bottle(body: str, label: str, cap: str) -> tuple[Shape, ...]:
    """A flat-sided bottle of 146 mm with a wide cap, along y."""
    flat = 0.64
    return (
        Box((0, -0.0394, 0.0005), (0.0281, 0.033, 0.0171)),
        Box((0, 0.0037, 0.0005), (0.0239, 0.0113, 0.0182)),
        Box((0, 0.0251, 0.0005), (0.0187, 0.0113, 0.0182)),
        *solid_prism("y", 0.0163, 0.036, 0.0732),
        Lathe(
            (
                *((0, -0.0724), (0.028, -0.0724), (0.0305, -0.066), (0.0305, -0.01), (0.025, 0.012)),
                *((0.0185, 0.0364), (0, 0.0364)),
            ),
            body,
            "y",
            squash=flat,
        ),
        Lathe(((0, -0.058), (0.0312, -0.058), (0.0312, -0.012), (0, -0.012)), label, "y", squash=flat),
        Lathe(((0, 0.0364), (0.0168, 0.0364), (0.0148, 0.0732), (0, 0.0732)), cap, "y"),
    )


def _dressing_bottle(body: str, label: str, cap: str) -> tuple[Shape, ...]:
    """A waisted bottle of 146 mm with a round cap, along y."""
    flat = 0.68
    return (
        Box((0, -0.0626, 0), (0.0215, 0.0101, 0.0173)),
        Box((0, -0.0314, 0), (0.0264, 0.021, 0.0173)),
        Box((0, -0.003, 0), (0.0215, 0.0113, 0.0173)),
        Box((0, 0.0084, 0), (0.0135, 0.0274, 0.0149)),
        *solid_prism("y", 0.0163, 0.0356, 0.0728),
        Lathe(
            (
                *((0, -0.0727), (0.022, -0.0727), (0.029, -0.05), (0.0295, -0.02), (0.0225, 0.005)),
                *((0.0135, 0.022), (0.0135, 0.0356), (0, 0.0356)),
            ),
            body,
            "y",
            squash=flat,
        ),
        Lathe(((0, -0.05), (0.0302, -0.05), (0.0302, -0.017), (0, -0.017)), label, "y", squash=flat),
        Lathe(((0, 0.0356), (0.0166, 0.0356), (0.0158, 0.0728), (0, 0.0728)), cap, "y"),
    )


def _flask(body: str, label: str, cap: str) -> tuple[Shape, ...]:
    """A small flat bottle of 107 mm, along z."""
    flat = 0.66
    return (
        Box((0, 0, -0.0278), (0.0235, 0.0145, 0.0268)),
        Box((0, 0, 0.0123), (0.0181, 0.0143, 0.0146)),
        Box((0, 0, 0.0391), (0.0143, 0.0146, 0.0134)),
        Lathe(
            (
                *((0, -0.0546), (0.0225, -0.0546), (0.0242, -0.05), (0.0242, -0.006), (0.018, 0.012)),
                *((0.013, 0.03), (0, 0.03)),
            ),
            body,
            squash=flat,
        ),
        Lathe(((0, -0.042), (0.0248, -0.042), (0.0248, -0.014), (0, -0.014)), label, squash=flat),
        Lathe(((0, 0.03), (0.0146, 0.03), (0.0136, 0.0525), (0, 0.0525)), cap, segments=14),
    )


GROCERIES: tuple[Item, ...] = (
    _item("alphabet_soup", _can("blue", "yellow"), 0.0259, -0.04, 0.04, 0.025),
    _item("tomato_sauce", _can("red", "green"), 0.0266, -0.06, 0.04, 0.025),
    _item("milk", _carton("white", "red", "sky", "blue"), 0.0317, -0.06, 0.04, 0.03),
    _item("orange_juice", _carton("orange", "yellow", "green", "white"), 0.0317, -0.06, 0.04, 0.025),
    _item("ketchup", _squeeze_bottle("red", "cream", "white"), 0.0232, -0.06, 0.04, 0.025),
    _item("salad_dressing", _dressing_bottle("cream", "lime", "green"), 0.0218, -0.06, 0.04, 0.025),
    # The frame of this one is near the bottle's foot.
    _item(
        "new_salad_dressing",
        moved(_dressing_bottle("cream", "lime", "green"), (0, 0.05, 0)),
        *(0.0218, -0.06, 0.04, 0.025),
    ),
    _item("bbq_sauce", _flask("dark brown", "yellow", "orange"), 0.0122, -0.06, 0.06, 0.015),
    _item("butter", _packet((0.0381, 0.0198, 0.0087), "yellow", "red", "yellow"), 0.00525, -0.02, 0.02, 0.02),
    _item("cream_cheese", _packet((0.0406, 0.0213, 0.0089), "silver", "white", "blue"), 0.0062, -0.025, 0.025, 0.03),
    _item("chocolate_pudding", _packet((0.0401, 0.0232, 0.0137), "brown", "pink", "brown"), 0.0102, -0.06, 0.04, 0.025),
    _item("cookies", _packet((0.031, 0.0413, 0.0094), "red", "cream", "biscuit"), 0.0096, -0.06, 0.04, 0.025),
)
