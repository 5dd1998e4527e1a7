"""The slider and the drawer."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, CLOSE, PUSHING, Arm, Motion, pointing_down, shifted
from avavla_ray.simulators.calvin.experts.retreat import free_hand, retreat
from avavla_ray.simulators.calvin.experts.scene import DRAWER_GAP, SLIDER_HANDLE, TABLE_EDGE, PlayTable

# The tip pushes the slider's handle from this far beside its middle, at this place relative to it, metres.
BESIDE, BEFORE_HANDLE, BELOW_HANDLE = 0.085, -0.02, -0.035
SLIDE, DRAW = 0.36, 0.26
OVER_CABINET, OVER_DRAWER = 0.62, 0.50
# A shelf opening with this much room to both sides of a block lets the hand in, metres.
HAND_ROOM = 0.07
# How much of the drawer has to lie before the table for the hand to reach in, metres.
DRAWER_ROOM = 0.05


def slide(arm: Arm, table: PlayTable, direction: float, way: float = SLIDE) -> Motion:
    """Push the slider's handle along x: `direction` 1 is right, -1 left; `way` in metres."""
    arm.gripper = CLOSE
    handle = table.place_on("slide_link", SLIDER_HANDLE)
    start = shifted(handle, x=-direction * BESIDE, y=BEFORE_HANDLE, z=BELOW_HANDLE)
    down = pointing_down()
    yield from arm.go("reach", np.array([start[0], -0.12, OVER_CABINET]), down)
    yield from arm.go("reach", shifted(start, y=-0.05), down)
    yield from arm.go("reach", start, down, speed=CAREFUL)
    yield from arm.go(
        "slide", shifted(start, x=direction * way), down, speed=PUSHING, limit=90, settle=6, delicate=True
    )


def slide_left(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    yield from free_hand(arm, table)
    yield from slide(arm, table, -1.0)


def slide_right(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    yield from free_hand(arm, table)
    yield from slide(arm, table, 1.0)


def clear_shelf(arm: Arm, table: PlayTable, x: float) -> Motion:
    """Push the slider away from `x` when it leaves too little room there for the hand."""
    for direction, (left, right) in zip((1.0, -1.0), table.openings(), strict=True):
        if left < x < right and min(x - left, right - x) >= HAND_ROOM:
            return
        nearest = right if direction > 0 else left
        beside = left - 0.03 < x < right + 0.03
        if beside and direction * (nearest - x) < HAND_ROOM:
            yield from slide(arm, table, direction, way=SLIDE / 2)
            yield from retreat(arm, table)
            return


def pull_drawer(arm: Arm, table: PlayTable) -> Motion:
    """Hook the drawer's handle from above and pull."""
    arm.gripper = CLOSE
    low, high = table.bounds("drawer_link")
    hook = np.array([(low[0] + high[0]) / 2, low[1] + DRAWER_GAP, table.link("drawer_link")[0][2] + 0.045])
    down = pointing_down()
    yield from arm.go("reach", np.array([hook[0], hook[1], OVER_DRAWER]), down)
    yield from arm.go("hook", hook, down, speed=CAREFUL)
    yield from arm.go("pull", shifted(hook, y=-DRAW), down, speed=PUSHING, settle=6, delicate=True)


def open_drawer(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    yield from free_hand(arm, table)
    yield from pull_drawer(arm, table)


def close_drawer(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    yield from free_hand(arm, table)
    arm.gripper = CLOSE
    low, high = table.bounds("drawer_link")
    start = np.array([(low[0] + high[0]) / 2, low[1] - 0.05, table.link("drawer_link")[0][2] + 0.04])
    down = pointing_down()
    yield from arm.go("reach", np.array([start[0], start[1], OVER_DRAWER]), down)
    yield from arm.go("reach", start, down, speed=CAREFUL)
    yield from arm.go("push", shifted(start, y=DRAW), down, speed=PUSHING, settle=6, delicate=True)


def open_drawer_wide(arm: Arm, table: PlayTable, y: float) -> Motion:
    """Pull the drawer further when the table's edge covers what lies in it at depth `y`, metres."""
    if y > TABLE_EDGE - DRAWER_ROOM and table.door("base__drawer") < 0.2:
        yield from pull_drawer(arm, table)
        yield from retreat(arm, table)
