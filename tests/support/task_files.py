"""What LIBERO's task files say, read without LIBERO: the things in a scene and the goal."""

from __future__ import annotations

import re
from dataclasses import dataclass

from avavla_ray.simulators.libero.suites import MAX_STEPS, Task, tasks_of

# Fixtures that are part of the room, not files of their own.
GROUNDS = {"floor", "table", "kitchen_table", "living_room_table", "study_table"}
SCENES = {
    "floor": "floor", "table": "tabletop", "kitchen_table": "kitchen_tabletop",
    "living_room_table": "living_room_tabletop", "study_table": "study",
}  # fmt: skip


@dataclass(frozen=True)
class TaskFile:
    """One task.

    Attributes:
        kinds: name of each thing in the scene -> its class, the ground among them.
        goals: predicates with their arguments, as written.
        ground_regions: regions on the ground, which LIBERO makes itself.
    """

    task: Task
    kinds: dict[str, str]
    goals: tuple[tuple[str, ...], ...]
    ground_regions: frozenset[str]

    @property
    def ground(self) -> str:
        return next(kind for kind in self.kinds.values() if kind in GROUNDS)


def _tree(text: str) -> list:
    stack: list[list] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0][0]


def _typed(words: list[str]) -> dict[str, str]:
    """`a b - kind c - other` as {a: kind, b: kind, c: other}."""
    kinds: dict[str, str] = {}
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-":
            kinds |= dict.fromkeys(names, next(rest))
            names = []
        else:
            names.append(word)
    return kinds


def read(task: Task) -> TaskFile:
    """The file of `task`."""
    parts = {part[0]: part[1:] for part in _tree(task.bddl.read_text())[1:] if isinstance(part, list)}
    kinds = _typed(parts[":fixtures"]) | _typed(parts[":objects"])
    regions = frozenset(
        f"{target[1]}_{name}"
        for name, *facts in parts[":regions"]
        for target in facts
        if target[0] == ":target" and kinds.get(target[1]) in GROUNDS
    )
    goals = tuple(tuple(goal) for goal in parts[":goal"][0][1:])
    return TaskFile(task, kinds, goals, regions)


def all_task_files() -> list[TaskFile]:
    """Of the 130 tasks."""
    return [read(task) for suite in MAX_STEPS for task in tasks_of(suite)]
