"""Pushing a block along the table or into the drawer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, CLOSE, PUSHING, Arm, Motion, pointing_down, shifted
from avavla_ray.simulators.calvin.experts.blocks import Block, landing_distance
from avavla_ray.simulators.calvin.experts.furniture import pull_drawer
from avavla_ray.simulators.calvin.experts.retreat import free_hand, retreat
from avavla_ray.simulators.calvin.experts.scene import TABLE_EDGE, TABLE_TOP, PlayTable

# Height of the tip while it pushes, and while it comes over; metres.
LOW, OVER = TABLE_TOP + 0.03, TABLE_TOP + 0.12
# How far a push goes that does not let go, how far past the table's edge, how far from the drawer's sides; metres.
PUSH, PAST_EDGE, SIDE = 0.15, 0.055, 0.05
# A push sideways swings from here to here and lets the block slide the rest of the 0.1 that count; then it draws back.
SWING, LET_GO, DRAW_BACK = 0.04, 0.085, 0.06
# What the drawer must be open for a block to fall in, metres.
WIDE_ENOUGH = 0.10


def get_behind(arm: Arm, table: PlayTable, block: Block, direction: np.ndarray) -> Motion:
    """Come down behind a block that is to be pushed along a horizontal unit `direction` (3,)."""
    arm.gripper = CLOSE
    behind = landing_distance(block, table.others(block), direction)
    # The closed fingers are wider along the direction in which they close. Towards the drawer that side faces the
    # block; sideways the hand stays as it is, and short pushes don't turn the block much.
    down = pointing_down(np.arctan2(direction[1], direction[0]) + np.pi / 2 if abs(direction[1]) > 0.7 else 0.0)
    start = block.position - behind * direction
    start[2] = LOW
    yield from arm.go("reach", np.array([start[0], start[1], OVER]), down)
    yield from arm.go("descend", start, down, speed=CAREFUL, settle=4)


def push_sideways(colour: str, direction: float) -> Callable[[Arm, PlayTable, int], Motion]:
    """A skill that pushes the block of a colour along x: `direction` 1 is right, -1 left.

    The next subtask of a chain may count only when the hand does not touch the block as it begins, and this one ends
    as soon as the block has come far enough: so the hand lets go before that.
    """

    def skill(arm: Arm, table: PlayTable, attempt: int) -> Motion:
        yield from free_hand(arm, table)
        block = table.block(colour)
        way = np.array([direction, 0.0, 0.0])
        yield from get_behind(arm, table, block, way)
        end = np.array([*(arm.tip + 2 * PUSH * way)[:2], LOW])
        for speed, until in ((PUSHING, SWING), (1.0, LET_GO)):
            for action in arm.go("push", end, speed=speed, delicate=True):
                if (table.block(colour).position - block.position) @ way > until:
                    break
                yield action
        back = np.array([*(arm.tip - DRAW_BACK * way)[:2], LOW])
        yield from arm.go("let go", back, speed=1.0, delicate=True)
        yield from arm.go("push", back + (DRAW_BACK + PUSH / 2) * way, speed=PUSHING, settle=6, delicate=True)

    return skill


def push_into_drawer(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Push a block that lies on the table over its edge into the open drawer, the nearest one to it first."""
    yield from free_hand(arm, table)
    if table.door("base__drawer") < WIDE_ENOUGH:
        yield from pull_drawer(arm, table)
        yield from retreat(arm, table)
    on_table = [block for block in table.blocks() if block.position[1] > TABLE_EDGE and block.bottom > TABLE_TOP - 0.02]
    low, high = table.drawer_inside()
    left, right = low[0] + SIDE, high[0] - SIDE

    def detour(block: Block) -> float:
        x = block.position[0]
        return abs(x - np.clip(x, left, right)) + block.position[1] + (1.0 if block.position[1] > 0.02 else 0.0)

    if not on_table:
        yield from arm.wait("nothing to push", 1)
        return
    block = sorted(on_table, key=detour)[min(attempt // 2, len(on_table) - 1)]
    goal = np.array([np.clip(block.position[0], left, right), TABLE_EDGE - PAST_EDGE, block.position[2]])
    way = goal - block.position
    yield from get_behind(arm, table, block, way / np.linalg.norm(way))
    end = np.array([*goal[:2], LOW])
    yield from arm.go("push", end, speed=PUSHING, limit=80, settle=6, delicate=True)
    yield from arm.go("retreat", shifted(arm.tip, y=0.02, z=0.08), settle=2)
    yield from arm.wait("watch", 10)
