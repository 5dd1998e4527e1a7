"""Turning a block on the table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, PUSHING, Arm, Motion, pointing_down, shifted
from avavla_ray.simulators.calvin.experts.lifting import choose_grasp, grasp_block
from avavla_ray.simulators.calvin.experts.retreat import free_hand
from avavla_ray.simulators.calvin.experts.scene import PlayTable

# More than the 60 degrees that count, and how high a block is held while it turns; radians, metres.
TURN, CLEAR = np.deg2rad(75), 0.012


def rotate(colour: str, direction: float) -> Callable[[Arm, PlayTable, int], Motion]:
    """A skill that turns the block of a colour: `direction` 1 is counter-clockwise (left), -1 clockwise (right)."""

    def skill(arm: Arm, table: PlayTable, attempt: int) -> Motion:
        yield from free_hand(arm, table)
        block = table.block(colour)
        # Start turned the other way, so that the wrist ends as far from home as it began.
        grasp = choose_grasp(block, table.others(block), attempt, prefer=-direction * TURN / 2)
        yield from grasp_block(arm, grasp)
        raised = shifted(arm.tip, z=CLEAR)
        yield from arm.go("lift", raised, speed=PUSHING)
        for part in (0.5, 1.0):
            euler = pointing_down(grasp.turn + part * direction * TURN)
            yield from arm.go("turn", raised, euler, settle=4)
        yield from arm.go("lower", raised - [0, 0, CLEAR - 0.003], speed=PUSHING)
        yield from arm.open()
        yield from arm.go("retreat", shifted(arm.tip, z=0.10), speed=CAREFUL)

    return skill
