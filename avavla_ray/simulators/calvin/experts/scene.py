"""CALVIN's play table as an expert sees it: where everything is, read from the simulation at every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from avavla_ray.simulators.calvin.experts.blocks import Block

# Shapes that the four scenes share; only the places of the furniture differ, and those are read from the simulation.
# In the frames of their links, metres: middle of the slider's handle, of the switch's cross-bar, and the top of the
# button; in the world, from the drawer's outermost point (its handle): the gap to hook it in, and its inside.
SLIDER_HANDLE = np.array([0.14, 0.0, 0.068])
SWITCH_BAR = np.array([0.0, 0.053, -0.008])
DRAWER_GAP, DRAWER_FRONT_WALL = 0.054, 0.104
# Height of the table's top, and where its front edge is: the drawer is open to the air before it.
TABLE_TOP, TABLE_EDGE = 0.44, -0.181


class PlayTable:
    """Poses of the furniture and of the blocks, and what touches what."""

    def __init__(self, env: Any) -> None:
        """Look at `env`, a `PlayTableSimEnv`."""
        self._env, self._p, self._cid = env, env.p, env.cid
        table = next(fixed for fixed in env.scene.fixed_objects if fixed.name == "table")
        self._table, self._links = table.uid, table.info_dict["links"]

    def link(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """((3,) position, (3, 3) rotation) of the frame of one of the table's links."""
        state = self._p.getLinkState(self._table, self._links[name], physicsClientId=self._cid)
        return np.array(state[4]), self._matrix(state[5])

    def place_on(self, name: str, point: np.ndarray) -> np.ndarray:
        """(3,) in the world of a point (3,) in a link's frame, metres."""
        position, rotation = self.link(name)
        return position + rotation @ point

    def bounds(self, name: str) -> np.ndarray:
        """(2, 3) lowest and highest corner of the box around a link, metres."""
        return np.array(self._p.getAABB(self._table, self._links[name], physicsClientId=self._cid))

    def _matrix(self, quaternion: Any) -> np.ndarray:
        return np.array(self._p.getMatrixFromQuaternion(quaternion)).reshape(3, 3)

    def door(self, name: str) -> float:
        """How far the slider ("base__slide") or the drawer ("base__drawer") is open, metres."""
        return float(next(door.get_state() for door in self._env.scene.doors if door.name == name))

    def blocks(self) -> list[Block]:
        """All blocks, where they are now."""
        return [self._block(movable) for movable in self._env.scene.movable_objects]

    def _block(self, movable: Any) -> Block:
        position, quaternion = self._p.getBasePositionAndOrientation(movable.uid, physicsClientId=self._cid)
        shape = self._p.getCollisionShapeData(movable.uid, -1, physicsClientId=self._cid)[0]
        return Block(movable.name, movable.uid, np.array(position), self._matrix(quaternion), np.array(shape[3]))

    def block(self, colour: str) -> Block:
        """The block of a colour: "red", "blue" or "pink"."""
        return next(block for block in self.blocks() if block.name == f"block_{colour}")

    def others(self, block: Block) -> list[Block]:
        return [other for other in self.blocks() if other.uid != block.uid]

    def touches(self, block: Block) -> set[int]:
        """PyBullet's ids of the bodies that a block touches."""
        contacts = self._p.getContactPoints(bodyA=block.uid, physicsClientId=self._cid)
        return {contact[2] for contact in contacts}

    def held(self) -> Block | None:
        """The block between the fingers, if there is one."""
        robot = self._env.robot
        for block in self.blocks():
            contacts = self._p.getContactPoints(bodyA=block.uid, bodyB=robot.robot_uid, physicsClientId=self._cid)
            # A finger and its tip are joints next to each other: left ones come before right ones.
            left = any(contact[4] < robot.gripper_joint_ids[1] for contact in contacts)
            if left and any(contact[4] >= robot.gripper_joint_ids[1] for contact in contacts):
                return block
        return None

    def openings(self) -> list[tuple[float, float]]:
        """(left, right) ends along x of the two parts of the shelf that the slider leaves open, metres."""
        shelf, door = self.bounds("plank_link")[:, 0], self.bounds("slide_link")[:, 0]
        return [(float(shelf[0]), float(door[0])), (float(door[1]), float(shelf[1]))]

    def drawer_inside(self) -> np.ndarray:
        """(2, 2) lowest and highest x, y of the drawer's floor that lies open before the table, metres."""
        low, high = self.bounds("drawer_link")
        width = (high[0] - low[0]) / 2 - 0.048
        middle = (high[0] + low[0]) / 2
        return np.array([[middle - width, low[1] + DRAWER_FRONT_WALL], [middle + width, TABLE_EDGE]])
