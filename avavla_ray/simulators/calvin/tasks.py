"""The 34 tasks of CALVIN and the sentence that the evaluation gives for each.

The order is that of the benchmark's task file (conf/tasks/new_playtable_tasks.yaml of calvin_env), and is the index of
a task in the suites calvin_a to calvin_d. The sentences are the benchmark's validation annotations, entry [0]: part of
the protocol, capital letters included.
"""

from __future__ import annotations

COLOURS = ("red", "blue", "pink")


def _instructions() -> dict[str, str]:
    sentences = {}
    for colour in COLOURS:
        for side in ("right", "left"):
            sentences[f"rotate_{colour}_block_{side}"] = f"take the {colour} block and rotate it to the {side}"
    for colour in COLOURS:
        for side in ("right", "left"):
            sentences[f"push_{colour}_block_{side}"] = f"go push the {colour} block {side}"
    for side in ("left", "right"):
        sentences[f"move_slider_{side}"] = f"push the sliding door to the {side} side"
    sentences["open_drawer"] = "pull the handle to open the drawer"
    sentences["close_drawer"] = "push the handle to close the drawer"
    for colour in COLOURS:
        sentences[f"lift_{colour}_block_table"] = f"grasp and lift the {colour} block"
        sentences[f"lift_{colour}_block_slider"] = f"lift the {colour} block from the sliding cabinet"
        sentences[f"lift_{colour}_block_drawer"] = f"Take the {colour} block from the drawer"
    sentences["place_in_slider"] = "store the grasped block in the sliding cabinet"
    sentences["place_in_drawer"] = "store the grasped block in the drawer"
    sentences["stack_block"] = "stack the grasped block"
    sentences["unstack_block"] = "remove the stacked block"
    sentences["turn_on_lightbulb"] = "use the switch to turn on the light bulb"
    sentences["turn_off_lightbulb"] = "use the switch to turn off the light bulb"
    sentences["turn_on_led"] = "press the button to turn on the led light"
    sentences["turn_off_led"] = "press the button to turn off the led light"
    sentences["push_into_drawer"] = "slide the block that it falls into the drawer"
    return sentences


INSTRUCTIONS: dict[str, str] = _instructions()
TASKS: tuple[str, ...] = tuple(INSTRUCTIONS)
