"""Every object and fixture of the bundled set."""

from __future__ import annotations

from avavla_ray.simulators.libero.bundled.books import BOOKS
from avavla_ray.simulators.libero.bundled.cookware import COOKWARE
from avavla_ray.simulators.libero.bundled.drinkware import DRINKWARE
from avavla_ray.simulators.libero.bundled.furniture import FURNITURE
from avavla_ray.simulators.libero.bundled.groceries import GROCERIES
from avavla_ray.simulators.libero.bundled.microwave import MICROWAVE
from avavla_ray.simulators.libero.bundled.mjcf import Item
from avavla_ray.simulators.libero.bundled.storage import STORAGE
from avavla_ray.simulators.libero.bundled.tableware import TABLEWARE

ITEMS: tuple[Item, ...] = (
    *GROCERIES, *TABLEWARE, *COOKWARE, *DRINKWARE, *BOOKS, *STORAGE, MICROWAVE, *FURNITURE,
)  # fmt: skip
