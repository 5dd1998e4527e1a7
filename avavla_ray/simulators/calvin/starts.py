"""Starts of single tasks: the fixed ones, and ones drawn by seed.

CALVIN publishes starts for chains only: 192 conditions of the scene, each with one placement of the blocks. A fixed
start of a task is the published state of a condition in which the task is possible. Seven tasks are possible in none of
them, because they begin with a block in the hand, in the drawer or on another block: their fixed starts are drawn, from
a stream of random numbers of their own.

A drawn start shares with the published ones only the symbols (which light is on, which compartment holds a block): the
blocks lie anywhere on their surface, turned by up to 45 degrees, and the arm is moved a little from its published pose.
So the published poses stay unseen in training.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.simulators.calvin.initial_states import (
    ROBOT_START,
    published_blocks,
    published_conditions,
    scene_vector,
)
from avavla_ray.simulators.calvin.layout import Layout, layout_of
from avavla_ray.simulators.calvin.rules import BLOCKS, COMPARTMENTS, RULES, Condition, outcomes
from avavla_ray.simulators.calvin.tasks import TASKS

FIXED_STARTS = 48
DRAWN, FIXED = 0, 1  # streams of random numbers
ATTEMPTS = 30
BLOCK_HEIGHT = 0.04
TABLE_HEIGHT, CABINET_HEIGHT, DRAWER_HEIGHT = 0.46, 0.461, 0.345
EDGE = 0.03  # metres that a block's centre keeps from the edge of its surface
APART = 0.12  # metres between the centres of two blocks on the table
PUSH = 0.12  # metres that a push needs
TURN = np.pi / 4
ARM_SPREAD = 0.02  # radians, standard deviation of each joint
SETTLE, CLOSE = 20, 10  # steps until blocks rest, until the hand has closed
NULL = np.array([0, 0, 0, 0, 0, 0, 1.0])
LINKS = {
    "table": "base_link", "stacked_bottom": "base_link", "drawer": "drawer_link",
    "slider_left": "plank_link", "slider_right": "plank_link",
}  # fmt: skip


@functools.cache
def possible_conditions(task: str) -> tuple[Condition, ...]:
    """The published conditions in which `task` can begin."""
    return tuple(condition for condition in published_conditions() if outcomes(task, condition))


def fixed_start(environment: Any, task: str, index: int) -> None:
    """Put the freshly loaded scene into fixed start `index` of `task`, 0 <= index < FIXED_STARTS."""
    conditions = possible_conditions(task)
    if not conditions:
        _draw(environment, task, np.random.default_rng([FIXED, TASKS.index(task), index]))
        return
    published_start(environment, conditions[index * len(conditions) // FIXED_STARTS])


def published_start(environment: Any, condition: Condition) -> None:
    """Put the freshly loaded scene into the evaluation's state of `condition`.

    In scene D, where the evaluation takes place, to the last digit; in the others at the places that correspond.
    """
    layout = layout_of(environment)
    if environment.avavla_scene == "d":
        blocks = published_blocks(condition)
    else:
        blocks = published_blocks(condition, layout.table_places(), layout.cabinet_places())
    environment.reset(ROBOT_START, scene_vector(condition, blocks, layout.blocks, layout.door_limit))


def draw_start(environment: Any, task: str, seed: int) -> None:
    """Put the freshly loaded scene into a start of `task` drawn with `seed`.

    Raises:
        SimulatorFailure: the blocks came to rest where they should in none of many draws.
    """
    _draw(environment, task, np.random.default_rng([DRAWN, TASKS.index(task), seed]))


def _draw(environment: Any, task: str, random: np.random.Generator) -> None:
    layout = layout_of(environment)
    for _ in range(ATTEMPTS):
        condition = draw_condition(task, random)
        blocks = _draw_blocks(task, condition, layout, random)
        robot = ROBOT_START.copy()
        robot[7:14] += random.normal(0.0, ARM_SPREAD, 7)
        environment.robot.gripper_action = 1
        environment.reset(robot, scene_vector(condition, blocks, layout.blocks, layout.door_limit))
        if condition["grasped"]:
            _put_in_hand(environment, next(block for block in BLOCKS if condition[block] == "grasped"))
        null = np.array([*NULL[:6], -1.0]) if condition["grasped"] else NULL
        for _ in range(SETTLE):
            environment.step(null.copy())
        if all(_lies_as_meant(environment, block, condition[block]) for block in BLOCKS):
            return
    raise SimulatorFailure(f"no start of {task} found in {ATTEMPTS} draws", "garbage")


def draw_condition(task: str, random: np.random.Generator) -> Condition:
    """A condition in which `task` is possible: at most one block in a compartment and two on the table."""

    def pick(values: tuple[Any, ...]) -> Any:
        return values[random.integers(len(values))]

    while True:
        condition: Condition = {
            "led": pick((0, 1)), "lightbulb": pick((0, 1)), "slider": pick(("left", "right")),
            "drawer": pick(("open", "closed")), **{block: pick(("table", *COMPARTMENTS)) for block in BLOCKS},
        }  # fmt: skip
        condition |= {key: pick(values) for key, values in pick(RULES[task]).needs.items()}
        places = [condition[block] for block in BLOCKS]
        crowded = any(places.count(side) > 1 for side in COMPARTMENTS)
        if not crowded and places.count("table") + places.count("stacked_bottom") <= 2:
            return condition


def _inside(rectangle: np.ndarray, random: np.random.Generator, edge: float = EDGE) -> np.ndarray:
    return random.uniform(rectangle[0] + edge, rectangle[1] - edge)


def _table_for(task: str, block: str, layout: Layout) -> np.ndarray:
    """The part of the table from which `task` leaves `block` on it."""
    table = layout.table.copy()
    if task == f"push_{block}_right":
        table[1, 0] -= PUSH
    elif task == f"push_{block}_left":
        table[0, 0] += PUSH
    return table


def _draw_blocks(task: str, condition: Condition, layout: Layout, random: np.random.Generator) -> dict[str, np.ndarray]:
    spots: dict[str, np.ndarray] = {}
    while not spots:
        for block in BLOCKS:
            where = condition[block]
            if where in ("table", "stacked_bottom"):
                spots[block] = np.array([*_inside(_table_for(task, block, layout), random), TABLE_HEIGHT])
            elif where in COMPARTMENTS:
                spots[block] = np.array([*_inside(layout.cabinet[where], random), CABINET_HEIGHT])
            elif where == "drawer":
                (left, front), (right, _) = layout.drawer
                # What the open drawer shows in front of the table, without its walls.
                shown = np.array([[left + 0.08, front + 0.10], [right - 0.08, front + 0.24]])
                spots[block] = np.array([*_inside(shown, random), DRAWER_HEIGHT])
        on_table = [spots[block] for block in BLOCKS if condition[block] in ("table", "stacked_bottom")]
        if len(on_table) == 2 and np.linalg.norm(on_table[0] - on_table[1]) < APART:
            spots = {}
            continue
        for block in BLOCKS:
            if condition[block] == "stacked_top":
                below = next(other for other in BLOCKS if condition[other] == "stacked_bottom")
                spots[block] = spots[below] + [0, 0, BLOCK_HEIGHT]
            elif condition[block] == "grasped":
                # Out of the way until the arm is in place.
                spots[block] = np.array([0.0, -0.6, 1.0])
    return {
        block: np.array([*spot, 0.0, 0.0, np.pi / 2 + random.uniform(-TURN, TURN)]) for block, spot in spots.items()
    }


def _put_in_hand(environment: Any, block: str) -> None:
    """Close the hand on `block`, without gravity until it holds."""
    engine, client = environment.p, environment.cid
    robot, _ = environment.robot.get_observation()
    engine.setGravity(0, 0, 0, physicsClientId=client)
    body = next(other for other in environment.scene.movable_objects if other.name == "block_" + block.split("_")[0])
    body.reset(np.array([*robot[:3], 0.0, 0.0, robot[5]]))
    for _ in range(CLOSE):
        environment.step(np.array([*NULL[:6], -1.0]))
    engine.setGravity(0, 0, -9.8, physicsClientId=client)


def _lies_as_meant(environment: Any, block: str, where: str) -> bool:
    scene = environment.get_info()["scene_info"]
    contacts = scene["movable_objects"]["block_" + block.split("_")[0]]["contacts"]
    touched = {(contact[2], contact[4]) for contact in contacts}
    bodies = {body for body, _ in touched}
    if where == "grasped":
        return bodies == {environment.robot.robot_uid}
    if where == "stacked_top":
        return len(bodies) == 1 and bodies <= {other["uid"] for other in scene["movable_objects"].values()}
    table = scene["fixed_objects"]["table"]
    return (table["uid"], table["links"][LINKS[where]]) in touched and environment.robot.robot_uid not in bodies
