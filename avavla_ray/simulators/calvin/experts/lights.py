"""The switch of the light bulb and the button of the LED."""

from __future__ import annotations

from avavla_ray.simulators.calvin.experts.arm import CAREFUL, CLOSE, PUSHING, Arm, Motion, pointing_down, shifted
from avavla_ray.simulators.calvin.experts.retreat import free_hand
from avavla_ray.simulators.calvin.experts.scene import SWITCH_BAR, PlayTable

OVER_BUTTON, PRESSED = 0.10, -0.005
# The hand is tipped so that the fingers get under or onto the bar of the switch; radians.
TIP_UNDER, TIP_ONTO = 0.75, 0.4


def press_button(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Press once from above; of the older CALVIN a light that is on from the start needs it twice."""
    yield from free_hand(arm, table)
    arm.gripper = CLOSE
    button, _ = table.link("button_link")
    down = pointing_down()
    yield from arm.go("reach", shifted(button, z=OVER_BUTTON), down)
    yield from arm.go("press", shifted(button, z=PRESSED), down, speed=CAREFUL, settle=6, limit=25, delicate=True)
    yield from arm.go("release", shifted(button, z=OVER_BUTTON), down, settle=4)


def switch_on(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Push the bar of the switch up from below."""
    yield from free_hand(arm, table)
    arm.gripper = CLOSE
    bar = table.place_on("switch_link", SWITCH_BAR)
    tipped = pointing_down(tip=TIP_UNDER)
    yield from arm.go("reach", shifted(bar, y=-0.15, z=0.05), tipped)
    yield from arm.go("reach", shifted(bar, y=-0.11, z=-0.05), tipped)
    yield from arm.go("under", shifted(bar, y=-0.01, z=-0.042), tipped, speed=CAREFUL)
    yield from arm.go("push", shifted(bar, y=0.04, z=0.073), tipped, speed=PUSHING, limit=40, settle=6, delicate=True)
    yield from arm.go("push", shifted(bar, y=0.05, z=0.118), tipped, speed=PUSHING, limit=20, settle=6, delicate=True)


def switch_off(arm: Arm, table: PlayTable, attempt: int) -> Motion:
    """Push the bar of the switch down from above."""
    yield from free_hand(arm, table)
    arm.gripper = CLOSE
    bar = table.place_on("switch_link", SWITCH_BAR)
    tipped = pointing_down(tip=TIP_ONTO)
    yield from arm.go("reach", shifted(bar, y=-0.07, z=0.10), tipped)
    yield from arm.go("over", shifted(bar, y=-0.005, z=0.053), tipped, speed=CAREFUL)
    yield from arm.go(
        "push", shifted(bar, y=-0.054, z=-0.062), tipped, speed=PUSHING, limit=40, settle=6, delicate=True
    )
