"""Where things are in one scene: the scenes A to D have the same parts at different places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from avavla_ray.simulators.calvin.initial_states import IN_CABINET, ON_TABLE, Places
from avavla_ray.simulators.calvin.rules import COMPARTMENTS

PUBLISHED_SCENE = "d"
# Where the published places on the table lie, as a share of its free width.
TABLE_SHARES = (1 / 7, 2 / 3)


@dataclass(frozen=True)
class Layout:
    """Places of a scene; rectangles are (2, 2): lower and upper corner (x, y), metres.

    Attributes:
        blocks: the blocks in the order of scene_obs, for instance "red_block".
        table: free part of the table top. cabinet: floor of each compartment. drawer: of the open drawer.
        door_left: joint position of the sliding door when it is as far left as the published states have it.
        places: where the published states put blocks: in scene D theirs, elsewhere the places that correspond.
    """

    blocks: tuple[str, ...]
    table: np.ndarray
    cabinet: dict[str, np.ndarray]
    drawer: np.ndarray
    door_left: float
    places: Places


def _places(table: np.ndarray, cabinet: dict[str, np.ndarray]) -> Places:
    (low, _), (high, _) = table
    return Places(
        tuple((low + share * (high - low), *place[1:]) for share, place in zip(TABLE_SHARES, ON_TABLE, strict=True)),
        {side: (float(cabinet[side][:, 0].mean()), *IN_CABINET[side][1:]) for side in COMPARTMENTS},
    )


def layout_of(environment: Any, scene: str) -> Layout:
    """The layout of scene "a" to "d", which `environment` has loaded; its drawer is open afterwards."""
    parts, engine, client = environment.scene, environment.p, environment.cid
    rectangles = {name: np.array(surface, float)[:, :2] for name, surface in parts.surfaces.items()}
    cabinet = {side: rectangles[side] for side in COMPARTMENTS}
    table = parts.fixed_objects[0]

    def limit(name: str) -> tuple[Any, float]:
        door = next(door for door in parts.doors if door.name == name)
        return door, float(engine.getJointInfo(table.uid, door.joint_index, physicsClientId=client)[9])

    drawer, opened = limit("base__drawer")
    drawer.reset(opened)
    box = engine.getAABB(table.uid, table.info_dict["links"]["drawer_link"], physicsClientId=client)
    published = scene == PUBLISHED_SCENE
    return Layout(
        tuple(block.name.removeprefix("block_") + "_block" for block in parts.movable_objects),
        rectangles["table"], cabinet, np.array(box, float)[:, :2], limit("base__slide")[1],
        Places() if published else _places(rectangles["table"], cabinet),
    )  # fmt: skip
