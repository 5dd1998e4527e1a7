"""The published initial states of CALVIN's evaluation: from a condition in symbols to joint angles and block poses.

Vectors: robot_obs (15,) = hand position 3, Euler angles 3, finger opening 1, arm joints 7, gripper command 1;
scene_obs (24,) = slider, drawer, button, switch, light bulb, LED, then 6 (position, Euler angles) for each block.
Metres and radians, world frame.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from avavla_ray.simulators.calvin.rules import BLOCKS, COMPARTMENTS, KEYS, Condition

ROBOT_START = np.array(
    [
        0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963, -1.21779124,
        1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0,
    ]
)  # fmt: skip
DOOR_LEFT, DRAWER_OPEN, SWITCH_ON = 0.28, 0.22, 0.088
Place = tuple[float, ...]
ON_TABLE: tuple[Place, ...] = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.11999514, 0.45999001))
IN_CABINET: Mapping[str, Place] = {
    "slider_left": (-0.240851662, 0.0924044687, 0.460990009),
    "slider_right": (0.070341633, 0.0924044687, 0.460990009),
}
YAW_RANGE = (np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8)


@dataclass(frozen=True)
class Places:
    """Where the published states put blocks, (x, y, z): two places on the table, one in each compartment."""

    table: tuple[Place, ...] = ON_TABLE
    cabinet: Mapping[str, Place] = field(default_factory=lambda: IN_CABINET)


PUBLISHED_PLACES = Places()


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


def published_blocks(condition: Condition, places: Places = PUBLISHED_PLACES) -> dict[str, np.ndarray]:
    """Pose (6,) of each block: the places on the table are dealt, and the blocks turned, by the condition's seed."""
    random = np.random.RandomState(condition_seed(condition))
    first, second = places.table if random.permutation(2)[0] == 0 else places.table[::-1]
    poses: dict[str, np.ndarray] = {}
    for block in BLOCKS:
        where = condition[block]
        if where in places.cabinet:
            place = places.cabinet[where]
        elif block == "red_block" or (block == "blue_block" and condition["red_block"] != "table"):
            place = first
        else:  # pink takes the second place also when it is alone on the table
            place = second
        poses[block] = np.array([*place, 0.0, 0.0, random.uniform(*YAW_RANGE)])
    return poses


def scene_vector(
    condition: Condition,
    blocks: dict[str, np.ndarray],
    order: tuple[str, ...] = BLOCKS,
    door_left: float = DOOR_LEFT,
) -> np.ndarray:
    """scene_obs (24,) of `condition`, with the blocks in the `order` of the scene.

    Args:
        door_left: how far left the scene's sliding door goes, where that is less than in the published states.
    """
    fixtures = [
        min(DOOR_LEFT, door_left) if condition["slider"] == "left" else 0.0,
        DRAWER_OPEN if condition["drawer"] == "open" else 0.0,
        0.0,
        SWITCH_ON if condition["lightbulb"] else 0.0,
        condition["lightbulb"],
        condition["led"],
    ]
    return np.concatenate([fixtures, *(blocks[block] for block in order)])
