"""What the table-top asks for: its suites, instructions and limits. Imports no simulator."""

from __future__ import annotations

from dataclasses import dataclass

from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.base import SuiteSpec

COLOURS = ("red", "green", "blue")
ZONES = ("left", "right")
# What lies on what, in the three stacking tasks.
STACKS = (("red", "green"), ("green", "blue"), ("blue", "red"))
NUM_INITIAL_STATES = 50
MAX_STEPS = {"tabletop": 100, "tabletop_memory": 60}
# The lamp of tabletop_memory shows the target for so many environment steps, and the gripper stands still so long: one
# decision of a policy with chunks of 8, so that nothing but its belief can carry the colour on.
CUE_STEPS = 8


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        kind: "reach", "push", "lift", "stack" or "recall" (reach the block whose colour the lamp has shown).
        block: colour of the block that it is about.
        goal: the zone to push to, or the colour of the block to stack on; empty for the other kinds.
        instruction: in words, as the policy reads it.
    """

    kind: str
    block: str
    goal: str
    instruction: str


SUITES: dict[str, tuple[Task, ...]] = {
    "tabletop": (
        *(Task("reach", block, "", f"reach the {block} block") for block in COLOURS),
        *(
            Task("push", block, zone, f"push the {block} block to the {zone} zone")
            for block in COLOURS
            for zone in ZONES
        ),
        *(Task("lift", block, "", f"pick up the {block} block and lift it") for block in COLOURS),
        *(Task("stack", block, base, f"stack the {block} block on the {base} block") for block, base in STACKS),
    ),
    "tabletop_memory": tuple(
        Task("recall", block, "", "reach the block of the colour that was shown") for block in COLOURS
    ),
}


def tasks_of(suite: str) -> tuple[Task, ...]:
    """Tasks of `suite` in order.

    Raises:
        InputError: the table-top has no such suite.
    """
    check_known("suite", suite, SUITES)
    return SUITES[suite]


def task_at(suite: str, index: int) -> Task:
    """Task `index` of `suite`.

    Raises:
        InputError: there is no such task.
    """
    tasks = tasks_of(suite)
    if not 0 <= index < len(tasks):
        raise InputError(f"task {index} does not exist: {suite} has tasks 0 to {len(tasks) - 1}")
    return tasks[index]


def suite_spec(suite: str) -> SuiteSpec:
    """Fixed facts of `suite`.

    Raises:
        InputError: the table-top has no such suite.
    """
    instructions = tuple(task.instruction for task in tasks_of(suite))
    return SuiteSpec(suite, instructions, MAX_STEPS[suite], NUM_INITIAL_STATES)
