"""Where to take hold of an object, from its collision geometry and that of its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# The Panda hand, in metres from the grip site: how far apart the fingers get, where they and the palm are.
MAX_WIDTH = 0.072
FINGER_INNER, FINGER_OUTER, FINGER_HALF_BREADTH, FINGER_BELOW = 0.030, 0.066, 0.017, 0.013
PALM_HALF_LENGTH, PALM_HALF_BREADTH, PALM_ABOVE = 0.112, 0.040, 0.042
WRIST_HALF, FLANGE_ABOVE = 0.05, 0.125
# Room to leave beside something that hangs over an object, before lifting it.
OVERHANG_GAP = 0.01
# Fingers hold this far below the top of a tall object, or below the rim of a wide one, and this far inside a rim.
BELOW_TOP, BELOW_RIM, INSIDE_RIM = 0.035, 0.016, 0.007
# The Panda's wrist over a hand that points down, and how far from the shoulder it may be before the elbow gets so
# straight that the arm barely moves; metres. Beyond, every centimetre costs as much as a fifth of a radian of turning.
WRIST_ABOVE, WRIST_BEHIND, REACH, STRETCH_COST = 0.21, 0.088, 0.62, 20.0


@dataclass(frozen=True)
class Grasp:
    """A hold from straight above.

    Attributes:
        position: (3,) of the grip site, metres.
        turn: of the hand about the vertical from where it is now, radians.
        rim: the fingers straddle a wall; otherwise they enclose the object.
        pinch: it is on some thin part, away from the middle.
        cost: of turning and of collisions; lower is better.
    """

    position: np.ndarray
    turn: float
    rim: bool
    cost: float
    pinch: bool = False


def plan_grasp(target: np.ndarray, obstacles: np.ndarray, closing_yaw: float, shoulder: np.ndarray) -> Grasp:
    """The cheapest way to enclose `target` across its narrow side, or else to straddle its rim.

    Args:
        target: (N, 3) points of the object. obstacles: (M, 3) dense points of everything else.
        closing_yaw: direction along which the fingers close now, radians.
        shoulder: (3,) of the robot, metres.
    """
    candidates = list(_enclosing(target, obstacles, closing_yaw)) or list(_straddling(target, obstacles, closing_yaw))
    return min(candidates, key=lambda grasp: grasp.cost + stretch(grasp.position, shoulder))


def overhang_escape(target: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """(2,) horizontal shift after which `target` can be lifted past what hangs over its edge, metres.

    Zero where nothing does, and where it is covered or surrounded, so that no direction is the way out.
    """
    centre = (target[:, :2].max(0) + target[:, :2].min(0)) / 2
    reach = np.linalg.norm(target[:, :2] - centre, axis=1).max()
    radius = reach + OVERHANG_GAP
    offset = obstacles[obstacles[:, 2] > target[:, 2].max(), :2] - centre
    away = np.linalg.norm(offset, axis=1)
    # A taller neighbour that only stands close by does not hang over anything.
    if not (away < reach).any():
        return np.zeros(2)
    offset = offset[away < radius]
    mean = offset.mean(0)
    if np.linalg.norm(mean) < radius / 2:
        return np.zeros(2)
    away = -mean / np.linalg.norm(mean)
    return float(radius + (offset @ away).max()) * away


def _enclosing(target: np.ndarray, obstacles: np.ndarray, closing_yaw: float) -> Iterator[Grasp]:
    low, high = target[:, 2].min(), target[:, 2].max()
    height = high - low
    level = max(low + 0.5 * height, high - BELOW_TOP)
    # The top is never further from the level than half the height, so this always holds points.
    slab = target[np.abs(target[:, 2] - level) <= max(0.03, height / 2) + 1e-6, :2]
    for angle in np.arange(0, np.pi, np.pi / 36):
        across, beside = _frame(angle)
        s, t = slab @ across, slab @ beside
        width = np.ptp(s)
        if width > MAX_WIDTH:
            continue
        place = (s.max() + s.min()) / 2 * across + (t.max() + t.min()) / 2 * beside
        turn = shortest_turn(angle - closing_yaw)
        cost = abs(turn) + 8 * max(0.0, width - 0.05) + _obstruction(obstacles, place, level, across, beside)
        yield Grasp(np.array([*place, level]), turn, False, cost)


def _straddling(target: np.ndarray, obstacles: np.ndarray, closing_yaw: float) -> Iterator[Grasp]:
    top = target[:, 2].max()
    centre = (target[:, :2].max(0) + target[:, :2].min(0)) / 2
    radius = np.percentile(np.linalg.norm(target[:, :2] - centre, axis=1), 98) - INSIDE_RIM
    level = top - BELOW_RIM
    for angle in np.arange(-np.pi, np.pi, np.pi / 18):
        across, beside = _frame(angle)
        place = centre + radius * across
        turn = shortest_turn(angle - closing_yaw)
        cost = 0.5 * abs(turn) + _obstruction(obstacles, place, level, across, beside)
        yield Grasp(np.array([*place, level]), turn, True, cost)


def _frame(angle: float) -> tuple[np.ndarray, np.ndarray]:
    across = np.array([np.cos(angle), np.sin(angle)])
    return across, np.array([-across[1], across[0]])


def shortest_turn(turn: float) -> float:
    """The fingers are alike, so half a turn is no turn: the equivalent angle in [-pi/2, pi/2)."""
    return float((turn + np.pi / 2) % np.pi - np.pi / 2)


def stretch(position: np.ndarray, shoulder: np.ndarray) -> float:
    """What it costs to straighten the arm for a grasp at `position`."""
    way = position - shoulder
    distance = np.hypot(np.hypot(way[0], way[1]) - WRIST_BEHIND, way[2] + WRIST_ABOVE)
    return float(STRETCH_COST * max(0.0, distance - REACH))


def _obstruction(
    obstacles: np.ndarray, place: np.ndarray, level: float, across: np.ndarray, beside: np.ndarray
) -> float:
    """Obstacle points that the open hand would sweep on its way straight down, 20 at most."""
    offset = obstacles[:, :2] - place
    s, t, above = np.abs(offset @ across), np.abs(offset @ beside), obstacles[:, 2] - level
    fingers = (t < FINGER_HALF_BREADTH) & (s > FINGER_INNER) & (s < FINGER_OUTER) & (above > -FINGER_BELOW)
    palm = (t < PALM_HALF_BREADTH) & (s < PALM_HALF_LENGTH) & (above > PALM_ABOVE)
    wrist = (t < WRIST_HALF) & (s < WRIST_HALF) & (above > FLANGE_ABOVE)
    return float(min(20, fingers.sum() + palm.sum() + wrist.sum()))
