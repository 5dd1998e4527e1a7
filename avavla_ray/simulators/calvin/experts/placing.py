"""Putting a held block down: on the shelf behind the slider, in the drawer, on another block."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, PUSHING, Arm, Motion, levelled, shifted
from avavla_ray.simulators.calvin.experts.blocks import Block
from avavla_ray.simulators.calvin.experts.lifting import take
from avavla_ray.simulators.calvin.experts.retreat import SAFE_HEIGHT, retreat
from avavla_ray.simulators.calvin.experts.scene import TABLE_EDGE, TABLE_TOP, PlayTable

# Where on the shelf blocks go (y), and the height of the drawer's floor; metres.
SHELF_DEPTH, DRAWER_FLOOR = 0.085, 0.341
# How far a block falls when it is let go, at what height it comes into the shelf, how far from its ends; metres.
GAP, OVER_SHELF, WALL = 0.006, 0.57, 0.06


def _ready(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Hold a block, at a height where it can be carried about: whichever is nearest when none is held."""
    if table.held() is None:
        yield from retreat(arm, table)
        nearest = min(table.blocks(), key=lambda block: float(np.linalg.norm(block.position - arm.tip)))
        yield from take(arm, table, nearest.name, attempt)
    yield from retreat(arm, table)


def _level(arm: Arm, table: PlayTable) -> np.ndarray | None:
    """(3,) Euler angles of the hand with which what it holds stands straight."""
    held = table.held()
    return None if held is None else levelled(arm.rotation, held.rotation)


def _set_down(arm: Arm, table: PlayTable, spot: np.ndarray, support: float, over: float) -> Motion:
    """Lower what is held onto `support` (a height) at `spot` (2,) and let go; metres."""
    yield from arm.go("carry", np.array([*spot, over]), _level(arm, table), speed=CAREFUL)
    held = table.held()
    offset = np.zeros(3) if held is None else held.position - arm.tip
    below = 0.02 if held is None else arm.tip[2] - held.bottom
    place = np.array([*(spot - offset[:2]), support + below + GAP])
    yield from arm.go("lower", place, speed=PUSHING, settle=6, limit=60)
    yield from arm.open()
    yield from arm.go("retreat", shifted(arm.tip, z=0.09), speed=CAREFUL, settle=4)
    yield from arm.wait("watch", 10)


def place_in_slider(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Put what is held on the shelf where the slider leaves most room."""
    yield from _ready(arm, table, attempt)
    left, right = max(table.openings(), key=lambda ends: ends[1] - ends[0])
    spot = np.array([_free_place(table, left + WALL, right - WALL), SHELF_DEPTH])
    yield from arm.go("carry", np.array([spot[0], -0.10, SAFE_HEIGHT]), _level(arm, table), speed=CAREFUL)
    yield from _set_down(arm, table, spot, float(table.bounds("plank_link")[1, 2]), OVER_SHELF)


def _free_place(table: PlayTable, left: float, right: float) -> float:
    """The place between two ends of the shelf that is farthest from the blocks on it."""
    held = table.held()
    taken = [b.position[0] for b in table.blocks() if b.position[1] > 0.03 and (held is None or b.uid != held.uid)]
    if right <= left or not taken:
        return (left + right) / 2
    return max(np.linspace(left, right, 9), key=lambda x: min(abs(x - other) for other in taken))


def place_in_drawer(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Put what is held into the part of the drawer that lies before the table."""
    yield from _ready(arm, table, attempt)
    low, high = table.drawer_inside()
    spot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2 - 0.005])
    yield from _set_down(arm, table, spot, DRAWER_FLOOR, SAFE_HEIGHT)


def stack(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Put what is held on the nearest block that lies on the table, or else on any."""
    yield from _ready(arm, table, attempt)
    held = table.held()
    others = table.others(held) if held is not None else table.blocks()

    def reluctance(block: Block) -> float:
        covered = block.position[2] < TABLE_TOP or block.position[1] > 0.0 or block.position[1] < TABLE_EDGE
        return float(np.linalg.norm(block.position - arm.tip)) + (1.0 if covered else 0.0)

    base = sorted(others, key=reluctance)[attempt % 2]
    yield from _set_down(arm, table, base.position[:2], base.top, SAFE_HEIGHT)
