"""Blocks as boxes: how far they reach, how they can be held, what is in the way. No simulator needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The hand pointing down, metres from the tip: the open fingers take up this much along the closing direction, and
# this much to each side of it.
FINGER_INNER, FINGER_OUTER, FINGER_HALF_BREADTH = 0.034, 0.066, 0.016
# What can be held, with room for an inexact approach; and how far below its top a tall block is held.
MAX_WIDTH, BELOW_TOP = 0.066, 0.024
# Half the side of the square that closed fingers take up when they come down beside a block, metres.
FINGERTIP = 0.03
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Block:
    """A box in the world.

    Attributes:
        name: for instance "block_red". uid: PyBullet's id of its body.
        position: (3,) of its centre, metres. rotation: (3, 3). size: (3,) edge lengths, metres.
    """

    name: str
    uid: int
    position: np.ndarray
    rotation: np.ndarray
    size: np.ndarray

    def half_extent(self, direction: np.ndarray) -> float:
        """How far it reaches from its centre along a unit `direction` (3,), metres."""
        return float(np.abs(self.rotation.T @ direction) @ self.size / 2)

    @property
    def top(self) -> float:
        """Height of its highest point, metres."""
        return float(self.position[2]) + self.half_extent(UP)

    @property
    def bottom(self) -> float:
        """Height of its lowest point, metres."""
        return float(self.position[2]) - self.half_extent(UP)


@dataclass(frozen=True)
class Grasp:
    """A hold from straight above.

    Attributes:
        position: (3,) of the tip, metres.
        turn: from the hand's home yaw, radians; the fingers close along the world's x axis turned by this.
        cost: of turning and of what the fingers would land on; lower is better.
    """

    position: np.ndarray
    turn: float
    cost: float


def shortest_turn(angle: float) -> float:
    """The fingers are alike, so half a turn is no turn: the equivalent angle in [-pi/2, pi/2)."""
    return float((angle + np.pi / 2) % np.pi - np.pi / 2)


def grasps(block: Block, others: list[Block], prefer: float = 0.0) -> list[Grasp]:
    """Ways to hold a block across two of its faces, best first; empty when it lies skew or is too wide.

    Args:
        others: blocks that the fingers should not land on.
        prefer: turn that costs nothing, radians.
    """
    level = max(block.position[2], block.top - BELOW_TOP)
    found = []
    for axis in range(3):
        across = block.rotation[:, axis].copy()
        if abs(across[2]) > 0.3 or block.size[axis] > MAX_WIDTH:
            continue
        angle = np.arctan2(across[1], across[0])
        for turn in (shortest_turn(angle), shortest_turn(angle) + np.pi, shortest_turn(angle) - np.pi):
            if abs(turn) > 0.75 * np.pi:
                continue
            blocked = sum(_lands_on(other, block, turn, level) for other in others)
            cost = abs(turn - prefer) + 8 * max(0.0, float(block.size[axis]) - 0.05) + 10.0 * blocked
            found.append(Grasp(np.array([*block.position[:2], level]), turn, cost))
    return sorted(found, key=lambda grasp: grasp.cost)


def _lands_on(other: Block, block: Block, turn: float, level: float) -> bool:
    """Whether a finger would come down on `other`."""
    if other.top < level - 0.015:
        return False
    along = np.array([np.cos(turn), np.sin(turn), 0.0])
    beside = np.array([-along[1], along[0], 0.0])
    offset = other.position - block.position
    s, t = abs(float(offset @ along)), abs(float(offset @ beside))
    reach_s, reach_t = other.half_extent(along), other.half_extent(beside)
    return bool(t < FINGER_HALF_BREADTH + reach_t and FINGER_INNER - reach_s < s < FINGER_OUTER + reach_s)


def landing_distance(block: Block, others: list[Block], direction: np.ndarray) -> float:
    """How far behind a block's centre the fingers may come down to push it along `direction` (3,), metres.

    Further than just behind it where other blocks stand there: those are then pushed along.
    """
    distance = block.half_extent(direction) + FINGERTIP
    for _ in others:
        spot = block.position - distance * direction
        for other in others:
            offset = np.abs(other.position[:2] - spot[:2])
            reach = np.array([other.half_extent(axis) for axis in np.eye(3)[:2]])
            if (offset < reach + FINGERTIP).all() and other.top > block.bottom + 0.01:
                behind = float((block.position - other.position) @ direction)
                distance = max(distance, behind + other.half_extent(direction) + FINGERTIP)
    return distance
