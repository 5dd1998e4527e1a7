"""Getting free: a subtask of a chain starts wherever the one before it ended."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, Arm, Motion, pointing_down
from avavla_ray.simulators.calvin.experts.scene import TABLE_EDGE, TABLE_TOP, PlayTable

# Heights and depths in metres: where nothing is in the way, and from where on the cabinet is.
SAFE_HEIGHT, SAFE_DEPTH, CABINET = 0.60, -0.12, -0.06
LOOSE = 0.03
# Where a block that is in the way of a subtask is put down; the first of these with room around it.
PARKING = tuple(np.array([x, -0.10]) for x in (0.12, 0.24, 0.02, 0.18, 0.30, -0.04))
ROOM = 0.09


def retreat(arm: Arm, table: PlayTable) -> Motion:
    """Take the hand to where it can go anywhere; what it holds comes along, and the hand stays as it took hold."""
    tip = arm.tip
    euler = pointing_down() if table.held() is None else None
    if tip[2] > SAFE_HEIGHT - 0.04 and tip[1] < CABINET:
        return
    if tip[2] < TABLE_TOP + 0.01 and tip[1] < TABLE_EDGE + 0.02:
        # In the drawer or behind its handle: nothing is above.
        yield from arm.go("retreat", np.array([tip[0], tip[1], SAFE_HEIGHT]), speed=CAREFUL, tolerance=LOOSE)
    elif tip[1] > 0.03:
        # In the shelf: up and out along its slope.
        yield from arm.go("retreat", np.array([tip[0], tip[1], tip[2] + 0.08]), tolerance=LOOSE, limit=20)
    elif tip[1] > CABINET:
        # By the cabinet's front, under or beside a handle: straight away from it.
        yield from arm.go("retreat", np.array([tip[0], SAFE_DEPTH, tip[2] + 0.02]), tolerance=LOOSE, limit=25)
    tip = arm.tip
    place = np.array([tip[0], min(tip[1], SAFE_DEPTH), SAFE_HEIGHT])
    up = np.array([tip[0], tip[1] if tip[1] < CABINET else SAFE_DEPTH, SAFE_HEIGHT])
    yield from arm.go("retreat", up, speed=CAREFUL, tolerance=LOOSE, limit=30)
    yield from arm.go("retreat", place, euler, tolerance=LOOSE, limit=40)


def free_hand(arm: Arm, table: PlayTable) -> Motion:
    """Let go of a block that the last subtask left in the hand, then retreat."""
    held = table.held()
    if held is not None and held.bottom > TABLE_TOP + 0.02:
        yield from _park(arm, table)
    elif held is not None:
        yield from arm.open()
    yield from retreat(arm, table)


def _park(arm: Arm, table: PlayTable) -> Motion:
    yield from retreat(arm, table)
    held = table.held()
    if held is None:
        return
    others = [other.position[:2] for other in table.others(held)]
    free = [spot for spot in PARKING if all(np.linalg.norm(spot - other) > ROOM for other in others)]
    spot = (free or PARKING)[0]
    drop = arm.tip[2] - held.bottom
    yield from arm.go("park", np.array([*spot, SAFE_HEIGHT]), speed=CAREFUL)
    yield from arm.go("park", np.array([*spot, TABLE_TOP + drop + 0.003]), speed=CAREFUL)
    yield from arm.open()
