"""The published initial states of CALVIN's evaluation: from a condition in symbols to joint angles and block poses.

Vectors: robot_obs (15,) = hand position 3, Euler angles 3, finger opening 1, arm joints 7, gripper command 1;
scene_obs (24,) = slider, drawer, button, switch, light bulb, LED, then 6 (position, Euler angles) for each block.
Metres and radians, world frame.
"""

from __future__ import annotations

import functools
from itertools import product

import numpy as np

from avavla_ray.simulators.calvin.rules import BLOCKS, COMPARTMENTS, KEYS, Condition

ROBOT_START = np.array(
    [
        0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963, -1.21779124,
        1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0,
    ]
)  # fmt: skip
SLIDER_LEFT, DRAWER_OPEN, SWITCH_ON = 0.28, 0.22, 0.088
IN_CABINET = {"slider_left": (-0.240851662, 0.0924044687, 0.460990009),
              "slider_right": (0.070341633, 0.0924044687, 0.460990009)}  # fmt: skip
ON_TABLE = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.11999514, 0.45999001))
YAW_RANGE = (np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8)


def fnv1(data: bytes) -> int:
    """32-bit FNV-1 with the initial value 0 (not the usual offset basis): what the protocol hashes conditions with."""
    value = 0
    for byte in data:
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ byte
    return value


def condition_seed(condition: Condition) -> int:
    """The seed that the protocol gives a condition: the hash of how Python prints its values, in UTF-16."""
    ordered = {key: condition[key] for key in KEYS}
    return fnv1(str(ordered.values()).encode("utf-16-le"))


@functools.cache
def published_conditions() -> tuple[Condition, ...]:
    """The 192 conditions that evaluation sequences begin in, in the protocol's order.

    One or two blocks are on the table, the others in different compartments of the cabinet.
    """
    places = ("table", "slider_right", "slider_left")
    values = product((0, 1), (0, 1), ("right", "left"), ("closed", "open"), places, places, places, (0,))
    return tuple(
        dict(zip(KEYS, chosen, strict=True))
        for chosen in values
        if 1 <= chosen.count("table") <= 2 and all(chosen.count(side) < 2 for side in COMPARTMENTS)
    )


def fixtures(condition: Condition, door_limit: float = SLIDER_LEFT) -> np.ndarray:
    """(6,) slider, drawer, button, switch, light bulb, LED of scene_obs."""
    return np.array(
        [
            min(SLIDER_LEFT, door_limit) if condition["slider"] == "left" else 0.0,
            DRAWER_OPEN if condition["drawer"] == "open" else 0.0,
            0.0,
            SWITCH_ON if condition["lightbulb"] else 0.0,
            condition["lightbulb"],
            condition["led"],
        ]
    )


def published_blocks(
    condition: Condition,
    on_table: tuple[tuple[float, ...], ...] = ON_TABLE,
    in_cabinet: dict[str, tuple[float, ...]] = IN_CABINET,  # noqa: B006
) -> dict[str, np.ndarray]:
    """Pose (6,) of each block: two places on the table, dealt by the condition's seed, and one in each compartment."""
    random = np.random.RandomState(condition_seed(condition))
    # Lists of arrays and one shuffle, because that is how the published draw consumes its random numbers.
    table = [np.array(place) for place in on_table]
    random.shuffle(table)  # type: ignore[arg-type]
    poses, used = {}, 0
    for block in BLOCKS:
        where = condition[block]
        if where == "table":
            # Pink always takes the second place, also when it is alone on the table.
            place = table[1] if block == "pink_block" else table[used]
            used += 1
        else:
            place = np.array(in_cabinet[where])
        poses[block] = np.array([*place, 0.0, 0.0, random.uniform(*YAW_RANGE)])
    return poses


def scene_vector(
    condition: Condition,
    blocks: dict[str, np.ndarray],
    order: tuple[str, ...] = BLOCKS,
    door_limit: float = SLIDER_LEFT,
) -> np.ndarray:
    """scene_obs (24,), with the blocks in the `order` of the scene."""
    return np.concatenate([fixtures(condition, door_limit), *(blocks[block] for block in order)])
