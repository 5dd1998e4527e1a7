"""When a table-top task is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.simulators.tabletop.scene import BLOCK_HALF, FINGERS, ZONE_HALF, ZONE_X
from avavla_ray.simulators.tabletop.tasks import COLOURS, Task

if TYPE_CHECKING:
    from avavla_ray.simulators.tabletop.world import World

REACH = 0.03  # metres between the fingertips and a block's centre: they are about it, or on it
LIFT = 0.06  # metres above where it lay
AT_REST = 0.05  # metres a second


def reached(world: World, colour: str) -> bool:
    """The fingertips are at the block."""
    return bool(np.linalg.norm(world.gripper[:3] - world.block(colour)) < REACH)


def pushed(world: World, colour: str, zone: str) -> bool:
    """The block's centre lies in the zone, the block on the table."""
    x, y, z = world.block(colour)
    half_x, half_y = ZONE_HALF
    return bool(abs(x - ZONE_X[zone]) < half_x and abs(y) < half_y and z < 1.25 * BLOCK_HALF)


def lifted(world: World, colour: str) -> bool:
    """Both fingers hold the block, well above the table."""
    held = all(world.touching(colour, finger) for finger in FINGERS)
    return bool(held and world.block(colour)[2] > BLOCK_HALF + LIFT)


def stacked(world: World, colour: str, base: str) -> bool:
    """The block rests on the other one, let go of."""
    across = world.block(colour) - world.block(base)
    above = bool(across[2] > 1.5 * BLOCK_HALF and np.linalg.norm(across[:2]) < BLOCK_HALF)
    free = not any(world.touching(colour, finger) for finger in FINGERS)
    return above and free and world.touching(colour, base) and world.block_speed(colour) < AT_REST


class Goal:
    """Watches one episode of a task.

    Of "recall" only the first block that is reached counts. Otherwise a policy that remembers nothing could visit all
    of them; so it can't succeed more often than one time in three.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._missed = False

    def check(self, world: World) -> bool:
        """Whether the task is done now; to be called after every environment step."""
        task = self._task
        if task.kind == "reach":
            return reached(world, task.block)
        if task.kind == "push":
            return pushed(world, task.block, task.goal)
        if task.kind == "lift":
            return lifted(world, task.block)
        if task.kind == "stack":
            return stacked(world, task.block, task.goal)
        self._missed |= any(reached(world, colour) for colour in COLOURS if colour != task.block)
        return not self._missed and reached(world, task.block)
