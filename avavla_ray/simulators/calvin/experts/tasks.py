"""Which skill plays which of CALVIN's 34 tasks."""

from __future__ import annotations

from avavla_ray.simulators.calvin.experts.furniture import close_drawer, open_drawer, slide_left, slide_right
from avavla_ray.simulators.calvin.experts.lifting import lift, unstack
from avavla_ray.simulators.calvin.experts.lights import press_button, switch_off, switch_on
from avavla_ray.simulators.calvin.experts.placing import place_in_drawer, place_in_slider, stack
from avavla_ray.simulators.calvin.experts.pushing import push_into_drawer, push_sideways
from avavla_ray.simulators.calvin.experts.rotating import rotate
from avavla_ray.simulators.calvin.experts.skilled import Skill

SKILLS: dict[str, Skill] = {
    "move_slider_left": slide_left,
    "move_slider_right": slide_right,
    "open_drawer": open_drawer,
    "close_drawer": close_drawer,
    "turn_on_lightbulb": switch_on,
    "turn_off_lightbulb": switch_off,
    "turn_on_led": press_button,
    "turn_off_led": press_button,
    "place_in_slider": place_in_slider,
    "place_in_drawer": place_in_drawer,
    "push_into_drawer": push_into_drawer,
    "stack_block": stack,
    "unstack_block": unstack,
}
for _colour in ("red", "blue", "pink"):
    for _place in ("table", "slider", "drawer"):
        SKILLS[f"lift_{_colour}_block_{_place}"] = lift(_colour)
    for _side, _sign in (("left", -1.0), ("right", 1.0)):
        SKILLS[f"push_{_colour}_block_{_side}"] = push_sideways(_colour, _sign)
        SKILLS[f"rotate_{_colour}_block_{_side}"] = rotate(_colour, -_sign)
