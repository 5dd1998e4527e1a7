"""Taking hold of a block and lifting it, from the table, the drawer or the shelf behind the slider."""

from __future__ import annotations

from collections.abc import Callable

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, OPEN, Arm, Motion, out_of_palm, pointing_down, shifted
from avavla_ray.simulators.calvin.experts.blocks import Block, Grasp, grasps
from avavla_ray.simulators.calvin.experts.furniture import clear_shelf, open_drawer_wide
from avavla_ray.simulators.calvin.experts.retreat import free_hand
from avavla_ray.simulators.calvin.experts.scene import TABLE_EDGE, TABLE_TOP, PlayTable

# How far above a hold the hand stops first, and how far it lifts; metres.
HOVER, LIFT = 0.10, 0.14
# How far the hand tips towards the shelf, radians: upright, its palm would meet the cabinet's sides.
SHELF_TIP = 0.6
# Below this height a block lies in the drawer; behind this depth, on the shelf; metres.
IN_DRAWER, ON_SHELF = TABLE_TOP - 0.02, 0.03


def choose_grasp(block: Block, others: list[Block], attempt: int, prefer: float = 0.0) -> Grasp:
    """The best hold, or the next best one at every further attempt; from straight above when none is known."""
    choices = grasps(block, others, prefer)
    if not choices:
        return Grasp(block.position.copy(), 0.0, 0.0)
    return choices[attempt % min(len(choices), 2)]


def grasp_block(arm: Arm, grasp: Grasp, tip: float = 0.0) -> Motion:
    """Come down over a hold and close the fingers; `tip` leans the palm out of the cabinet, radians."""
    arm.gripper = OPEN
    euler = pointing_down(grasp.turn, tip)
    out = out_of_palm(tip)
    yield from arm.go("reach", grasp.position + HOVER * out, euler, tolerance=0.01)
    yield from arm.go("descend", grasp.position, euler, speed=CAREFUL, settle=5, out=out)
    yield from arm.close()


def take(arm: Arm, table: PlayTable, name: str, attempt: int) -> Motion:
    """Clear the way to a block ("block_red") and take hold of it."""
    colour = name.removeprefix("block_")
    block = table.block(colour)
    if block.position[2] < IN_DRAWER and block.position[1] < 0:
        yield from open_drawer_wide(arm, table, block.position[1])
    elif block.position[1] > ON_SHELF:
        yield from clear_shelf(arm, table, block.position[0])
    block = table.block(colour)
    grasp = choose_grasp(block, table.others(block), attempt)
    on_shelf = block.position[1] > ON_SHELF
    yield from grasp_block(arm, grasp, SHELF_TIP if on_shelf else 0.0)


def lift(colour: str) -> Callable[[Arm, PlayTable, int], Motion]:
    """A skill that lifts the block of a colour from wherever it lies."""

    def skill(arm: Arm, table: PlayTable, attempt: int) -> Motion:
        yield from free_hand(arm, table)
        yield from take(arm, table, f"block_{colour}", attempt)
        yield from arm.go("lift", shifted(arm.tip, z=LIFT), speed=CAREFUL, settle=8)

    return skill


def unstack(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Lift the block that stands on nothing but another block."""
    yield from free_hand(arm, table)
    top = max(table.blocks(), key=lambda block: block.bottom if block.position[1] > TABLE_EDGE else 0.0)
    yield from take(arm, table, top.name, attempt)
    yield from arm.go("lift", shifted(arm.tip, z=LIFT / 2), speed=CAREFUL, settle=8)
