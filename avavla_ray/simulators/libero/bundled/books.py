"""Two books that stand on their lower edge: a block of pages between covers, the spine at -y."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.mjcf import Body, Item
from avavla_ray.simulators.libero.bundled.shapes import Box, Shape, Vector

COVER = 0.0013


def _book(name: str, centre: Vector, half: Vector, cover: str, mass: float) -> Item:
    """A book as thick as 2 `half[0]`; contact is with one box."""
    x, y, z = centre
    thick, wide, tall = half
    shapes: tuple[Shape, ...] = (
        Box(centre, half),
        Box((x, y + 0.0015, z), (thick - 2 * COVER, wide - 0.0035, tall - 0.003), "paper", solid=False),
        *(Box((x + side * (thick - COVER), y, z), (COVER, wide, tall), cover, solid=False) for side in (-1, 1)),
        Box((x, y - wide + COVER, z), (thick, COVER, tall), cover, solid=False),
        Box((x, y - wide - 0.0001, z + 0.4 * tall), (0.5 * thick, COVER, 0.3 * tall), "silver", solid=False),
    )
    path = f"turbosquid_objects/{name}/{name}.xml"
    return Item(path, Body("object", shapes), mass=mass, bottom=-0.06, top=0.04, radius=0.025)


BOOKS: tuple[Item, ...] = (
    _book("black_book", (-0.0005, -0.0122, 0.0694), (0.0143, 0.0552, 0.0672), "black", 0.0425),
    _book("yellow_book", (0.0016, 0.0001, 0.0631), (0.0118, 0.0489, 0.0611), "mustard", 0.0281),
)
