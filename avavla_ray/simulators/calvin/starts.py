"""Starts of single tasks: the fixed ones, and ones drawn by seed.

CALVIN publishes starts for chains only: 192 conditions of the scene, each with one placement of the blocks. A fixed
start of a task is the published state of a condition in which the task is possible. Seven tasks are possible in none of
them, because they begin with a block in the hand, in the drawer or on another block: their fixed starts are drawn, from
random numbers of their own.

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
from avavla_ray.simulators.calvin.layout import Layout
from avavla_ray.simulators.calvin.rules import BLOCKS, COMPARTMENTS, RULES, Condition, outcomes
from avavla_ray.simulators.episodes import start_random

FIXED_STARTS = 48  # of the 192 conditions, the least that any of the other 27 tasks is possible in
ATTEMPTS = 30
BLOCK_HEIGHT = 0.04
TABLE_HEIGHT, CABINET_HEIGHT, DRAWER_HEIGHT = 0.46, 0.461, 0.345
EDGE = 0.03  # metres that a block's centre keeps from the edge of its surface
APART = 0.12  # metres between the centres of two blocks on the table
PUSH = 0.12  # metres that a push needs
DRAWER_WALLS, DRAWER_SHOWN = (0.08, 0.10), 0.24  # metres inside the drawer's box, and how far in the table covers it
TURN = np.pi / 4
ARM_SPREAD = 0.02  # radians, standard deviation of each joint
SETTLE, CLOSE = 20, 10  # steps until blocks rest, until the hand has closed
OPEN_HAND, CLOSED_HAND = np.array([0, 0, 0, 0, 0, 0, 1.0]), np.array([0, 0, 0, 0, 0, 0, -1.0])
LINKS = {
    "table": "base_link", "stacked_bottom": "base_link", "drawer": "drawer_link",
    "slider_left": "plank_link", "slider_right": "plank_link",
}  # fmt: skip


@functools.cache
def possible_conditions(task: str) -> tuple[Condition, ...]:
    """The published conditions in which `task` can begin."""
    return tuple(condition for condition in published_conditions() if outcomes(task, condition))


def start_task(environment: Any, layout: Layout, task: str, initial_state: int | None, seed: int) -> None:
    """Put the freshly loaded scene into fixed start `initial_state` of `task`, or into one drawn with `seed`.

    Raises:
        SimulatorFailure: the blocks came to rest where they should in none of many draws.
    """
    conditions = possible_conditions(task)
    if initial_state is not None and conditions:
        # Spread over all of them, whose first half has the LED off.
        published_start(environment, layout, conditions[initial_state * len(conditions) // FIXED_STARTS])
        return
    random = start_random(initial_state, seed)
    for _ in range(ATTEMPTS):
        if _place(environment, layout, task, draw_condition(task, random), random):
            return
    raise SimulatorFailure(f"no start of {task} found in {ATTEMPTS} draws")


def start_in(environment: Any, layout: Layout, task: str, condition: Condition, random: np.random.Generator) -> None:
    """Put the freshly loaded scene into a draw of `condition`, with room for `task`.

    Raises:
        SimulatorFailure: the blocks came to rest where they should in none of many draws.
    """
    if not any(_place(environment, layout, task, condition, random) for _ in range(ATTEMPTS)):
        raise SimulatorFailure(f"no start of {task} found in {ATTEMPTS} draws of {condition}")


def published_start(environment: Any, layout: Layout, condition: Condition) -> None:
    """Put the freshly loaded scene into the evaluation's state of `condition`."""
    blocks = published_blocks(condition, layout.places)
    environment.reset(ROBOT_START, scene_vector(condition, blocks, layout.blocks, layout.door_left))


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


def _place(environment: Any, layout: Layout, task: str, condition: Condition, random: np.random.Generator) -> bool:
    """Put the scene into a draw of `condition` and let it come to rest; False when it rests otherwise."""
    blocks = _draw_blocks(task, condition, layout, random)
    robot = ROBOT_START.copy()
    robot[7:14] += random.normal(0.0, ARM_SPREAD, 7)
    environment.robot.gripper_action = 1
    environment.reset(robot, scene_vector(condition, blocks, layout.blocks, layout.door_left))
    held = [block for block in BLOCKS if condition[block] == "grasped"]
    if held:
        _put_in_hand(environment, held[0])
    for _ in range(SETTLE):
        environment.step((CLOSED_HAND if held else OPEN_HAND).copy())
    return all(_rests(environment, block, condition[block]) for block in BLOCKS)


def _inside(rectangle: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.uniform(rectangle[0] + EDGE, rectangle[1] - EDGE)


def _table_for(task: str, block: str, layout: Layout) -> np.ndarray:
    """The part of the table from which `task` leaves `block` on it."""
    table = layout.table.copy()
    if task == f"push_{block}_right":
        table[1, 0] -= PUSH
    elif task == f"push_{block}_left":
        table[0, 0] += PUSH
    return table


def _draw_blocks(task: str, condition: Condition, layout: Layout, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Pose (6,) of each block; one in the hand is put aside until the arm is in place."""
    on_table = [block for block in BLOCKS if condition[block] in ("table", "stacked_bottom")]
    while True:
        spots = {
            block: np.array([*_inside(_table_for(task, block, layout), random), TABLE_HEIGHT]) for block in on_table
        }
        if len(on_table) < 2 or np.linalg.norm(np.subtract(*spots.values())) >= APART:
            break
    (left, front), (right, _) = layout.drawer
    side, depth = DRAWER_WALLS
    shown = np.array([[left + side, front + depth], [right - side, front + DRAWER_SHOWN]])
    for block in BLOCKS:
        where = condition[block]
        if where in COMPARTMENTS:
            spots[block] = np.array([*_inside(layout.cabinet[where], random), CABINET_HEIGHT])
        elif where == "drawer":
            spots[block] = np.array([*_inside(shown, random), DRAWER_HEIGHT])
        elif where == "stacked_top":
            below = next(other for other in BLOCKS if condition[other] == "stacked_bottom")
            spots[block] = spots[below] + [0, 0, BLOCK_HEIGHT]
        elif where == "grasped":
            spots[block] = np.array([0.0, -0.6, 1.0])
    turns = {block: np.pi / 2 + random.uniform(-TURN, TURN) for block in BLOCKS}
    return {block: np.array([*spots[block], 0.0, 0.0, turns[block]]) for block in BLOCKS}


def _body(block: str) -> str:
    return "block_" + block.split("_")[0]


def _put_in_hand(environment: Any, block: str) -> None:
    """Close the hand on `block`, without gravity until it holds."""
    engine, client = environment.p, environment.cid
    robot, _ = environment.robot.get_observation()
    engine.setGravity(0, 0, 0, physicsClientId=client)
    body = next(other for other in environment.scene.movable_objects if other.name == _body(block))
    body.reset(np.array([*robot[:3], 0.0, 0.0, robot[5]]))
    for _ in range(CLOSE):
        environment.step(CLOSED_HAND.copy())
    engine.setGravity(0, 0, -9.8, physicsClientId=client)


def _rests(environment: Any, block: str, where: str) -> bool:
    scene = environment.get_info()["scene_info"]
    touched = {(contact[2], contact[4]) for contact in scene["movable_objects"][_body(block)]["contacts"]}
    bodies = {body for body, _ in touched}
    if where == "grasped":
        return bodies == {environment.robot.robot_uid}
    if where == "stacked_top":
        return len(bodies) == 1 and bodies <= {other["uid"] for other in scene["movable_objects"].values()}
    table = scene["fixed_objects"]["table"]
    return (table["uid"], table["links"][LINKS[where]]) in touched and environment.robot.robot_uid not in bodies
