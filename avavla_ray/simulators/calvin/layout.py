"""Where things are in one scene: the scenes A to D have the same parts at different places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from avavla_ray.simulators.calvin.initial_states import IN_CABINET, ON_TABLE
from avavla_ray.simulators.calvin.rules import COMPARTMENTS

# Where the published places on the table lie, as a share of its free width.
TABLE_SHARES = (1 / 7, 2 / 3)


@dataclass(frozen=True)
class Layout:
    """Places of a scene; rectangles are (2, 2): lower and upper corner (x, y), metres.

    Attributes:
        blocks: the blocks in the order of scene_obs, for instance "red_block".
        table: free part of the table top. cabinet: floor of each compartment. drawer: of the open drawer.
        door_limit: joint position of the sliding door when it is on the left.
    """

    blocks: tuple[str, ...]
    table: np.ndarray
    cabinet: dict[str, np.ndarray]
    drawer: np.ndarray
    door_limit: float

    def table_places(self) -> tuple[tuple[float, ...], ...]:
        """The two published places; they are those of scene D, and other scenes have theirs in proportion."""
        (low, _), (high, _) = self.table
        return tuple(
            (low + share * (high - low), *place[1:]) for share, place in zip(TABLE_SHARES, ON_TABLE, strict=True)
        )

    def cabinet_places(self) -> dict[str, tuple[float, ...]]:
        return {side: (float(self.cabinet[side][:, 0].mean()), *IN_CABINET[side][1:]) for side in COMPARTMENTS}


def layout_of(environment: Any) -> Layout:
    """The layout of the scene that `environment` has loaded; its drawer is opened as a side effect."""
    scene, engine = environment.scene, environment.p
    rectangles = {name: np.array(surface, float)[:, :2] for name, surface in scene.surfaces.items()}
    table = scene.fixed_objects[0]
    door = next(door for door in scene.doors if door.name == "base__slide")
    limit = engine.getJointInfo(table.uid, door.joint_index, physicsClientId=environment.cid)[9]
    drawer = next(door for door in scene.doors if door.name == "base__drawer")
    drawer.reset(engine.getJointInfo(table.uid, drawer.joint_index, physicsClientId=environment.cid)[9])
    box = engine.getAABB(table.uid, table.info_dict["links"]["drawer_link"], physicsClientId=environment.cid)
    return Layout(
        tuple(block.name.removeprefix("block_") + "_block" for block in scene.movable_objects),
        rectangles["table"], {side: rectangles[side] for side in COMPARTMENTS},
        np.array(box, float)[:, :2], float(limit),
    )  # fmt: skip
