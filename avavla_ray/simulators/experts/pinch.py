"""Where to take hold of a thing of any shape: a search over its solid points for something thin enough to pinch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avavla_ray.simulators.experts.grasp import (
    FINGER_BELOW,
    FINGER_OUTER,
    FLANGE_ABOVE,
    WRIST_HALF,
    Grasp,
    shortest_turn,
    stretch,
)

# The open hand in metres from the grip site: the pads, and how much room fingers and palm take.
PAD_INNER, PAD_HALF_BREADTH, PAD_BAND = 0.036, 0.008, 0.006
FINGER_HALF_BREADTH = 0.011
PALM_HALF_LENGTH, PALM_HALF_BREADTH, PALM_ABOVE = 0.107, 0.034, 0.034
# What is searched: holds so far below a thing's top, this far apart across it, in so many directions.
LEVELS, SPACING, DIRECTIONS = (0.012, 0.022, 0.035, 0.05), 0.008, 18
# Only what is this near, metres, can be in the way; so many of a thing's own points in the way are rounding.
NEIGHBOURHOOD, TOLERATED = 0.25, 20
# Costs beside those of turning (a radian costs 0.5): a metre from the middle of the thing, a metre of what is pinched,
# a metre by which it is thicker on one side of the pads than on the other, so that it is squeezed out, and a point
# that is in the way.
OFF_MIDDLE, THICKNESS, WEDGE, IN_THE_WAY = 8.0, 4.0, 40.0, 1.0
# What another try within so many metres of one that has failed costs.
SLIPPED, SAME_PLACE = 2.0, 0.025
# What a hold on the rim of a dish is raised by at most to keep the fingers off the inside of its bottom.
DISH = 0.025
BIN = 0.004


class _Tally:
    """How many points lie in rectangles of the plane, to within the width of a bin: a summed-area table."""

    def __init__(self, points: np.ndarray) -> None:
        """Count (N, 2) points, metres from the middle of the search."""
        edges = np.arange(-NEIGHBOURHOOD - 2 * BIN, NEIGHBOURHOOD + 3 * BIN, BIN)
        counts, *_ = np.histogram2d(points[:, 0], points[:, 1], bins=[edges, edges])
        self._sums = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        self._first = edges[0]

    def within(self, places: np.ndarray, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
        """(C,) points in the rectangle from `low` to `high` about each of (C, 2) places."""
        last = len(self._sums) - 1
        a, b = (np.clip(np.rint((places + corner - self._first) / BIN).astype(int), 0, last) for corner in (low, high))
        sums = self._sums
        return sums[b[:, 0], b[:, 1]] - sums[a[:, 0], b[:, 1]] - sums[b[:, 0], a[:, 1]] + sums[a[:, 0], a[:, 1]]


class _HandRoom:
    """What is where fingers, palm and wrist pass when the open hand comes straight down to `level`."""

    def __init__(self, points: np.ndarray, height: np.ndarray, level: float) -> None:
        self._low = _Tally(points[height > level - FINGER_BELOW])
        self._high = _Tally(points[height > level + PALM_ABOVE])
        self._highest = _Tally(points[height > level + FLANGE_ABOVE])

    def taken(self, places: np.ndarray) -> np.ndarray:
        """(C,) points in the way at each of (C, 2) places."""
        breadth = FINGER_HALF_BREADTH
        left = self._low.within(places, (-FINGER_OUTER, -breadth), (-PAD_INNER, breadth))
        right = self._low.within(places, (PAD_INNER, -breadth), (FINGER_OUTER, breadth))
        palm, wrist = (PALM_HALF_LENGTH, PALM_HALF_BREADTH), (WRIST_HALF, WRIST_HALF)
        above = self._high.within(places, (-palm[0], -palm[1]), palm)
        return left + right + above + self._highest.within(places, (-wrist[0], -wrist[1]), wrist)


def plan_pinch(
    target: np.ndarray,
    obstacles: np.ndarray,
    closing_yaw: float,
    shoulder: np.ndarray,
    floor: float,
    slipped: tuple[np.ndarray, ...] = (),
) -> Grasp | None:
    """The cheapest hold from straight above on some part of `target` that fits between the fingers; None if none does.

    Args:
        target: (N, 3) dense points of the thing. obstacles: (M, 3) dense points of everything else.
        closing_yaw: direction along which the fingers close now, radians.
        shoulder: (3,) of the robot, metres. floor: height of what the thing stands on, metres.
        slipped: (2,) positions about which the thing has slipped out of the fingers before.
    """
    middle = np.array([*((target.max(0) + target.min(0))[:2] / 2), 0.0])
    target, obstacles = target - middle, obstacles - middle
    best: Grasp | None = None
    for below in LEVELS:
        level = max(target[:, 2].max() - below, floor + FINGER_BELOW)
        for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
            turn = shortest_turn(angle - closing_yaw)
            places, cost = _in_direction(target, obstacles, angle, level)
            if not len(places):
                continue
            for place in slipped:
                cost += SLIPPED * (np.linalg.norm(places + middle[:2] - place, axis=1) < SAME_PLACE)
            index = int(np.argmin(cost))
            position = np.array([*places[index], level]) + middle
            total = float(cost[index]) + 0.5 * abs(turn) + stretch(position, shoulder)
            if best is None or total < best.cost:
                best = Grasp(position, turn, True, total, pinch=True)
    return best


def has_hold(target: np.ndarray, grasp: Grasp, closing_yaw: float) -> bool:
    """Whether `grasp` has some of the dense points `target` between the fingers, and room for fingers and palm."""
    points = target - np.array([*grasp.position[:2], 0.0])
    own = points[:, :2] @ _frame(closing_yaw + grasp.turn)
    band = np.abs(points[:, 2] - grasp.position[2]) < PAD_BAND
    between = (np.abs(own) < (PAD_INNER, PAD_HALF_BREADTH)).all(1) & band
    taken = _HandRoom(own, points[:, 2], grasp.position[2]).taken(np.zeros((1, 2)))
    return bool(between.any() and taken[0] <= TOLERATED)


def above_own_floor(target: np.ndarray, grasp: Grasp, closing_yaw: float) -> Grasp:
    """`grasp`, raised if a finger would go too deep into the dish, of dense points `target`, whose rim it straddles."""
    own = np.abs((target[:, :2] - grasp.position[:2]) @ _frame(closing_yaw + grasp.turn))
    under = (own[:, 0] > PAD_INNER) & (own[:, 0] < FINGER_OUTER) & (own[:, 1] < FINGER_HALF_BREADTH)
    raised = target[under, 2].max(initial=-np.inf) + FINGER_BELOW - grasp.position[2]
    if not 0 < raised < DISH:
        return grasp
    return replace(grasp, position=grasp.position + np.array([0, 0, raised]))


def _frame(angle: float) -> np.ndarray:
    """(2, 2) whose columns are the closing direction and the one beside it."""
    across = np.array([np.cos(angle), np.sin(angle)])
    return np.stack([across, [-across[1], across[0]]], axis=1)


def _in_direction(
    target: np.ndarray, obstacles: np.ndarray, angle: float, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 2) places at one height where the fingers, closing along `angle`, have a hold; (C,) costs."""
    frame = _frame(angle)
    own, other = target[:, :2] @ frame, obstacles[:, :2] @ frame
    held = own[np.abs(target[:, 2] - level) < PAD_BAND]
    places = np.unique(np.round(held / SPACING), axis=0) * SPACING
    # (candidates, points) distances along the closing direction and beside it.
    s, t = held[:, 0] - places[:, :1], held[:, 1] - places[:, 1:]
    between = (np.abs(s) < PAD_INNER) & (np.abs(t) < PAD_HALF_BREADTH)
    low, high = _extent(s, between)
    sized = np.isfinite(low)
    s, t, between, places, low, high = s[sized], t[sized], between[sized], places[sized], low[sized], high[sized]
    wedge = np.abs(np.subtract(*(_width(s, between & side) for side in (t > 0, t < 0))))
    # Move each candidate to the middle of what it would pinch.
    places[:, 0] += (low + high) / 2
    fits = _HandRoom(own, target[:, 2], level).taken(places) == 0
    places, thickness, wedge = places[fits], (high - low)[fits], wedge[fits]
    taken = _HandRoom(other, obstacles[:, 2], level).taken(places)
    cost = OFF_MIDDLE * np.linalg.norm(places, axis=1) + THICKNESS * thickness + WEDGE * wedge + IN_THE_WAY * taken
    return places @ frame.T, cost


def _extent(s: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) least and greatest of (C, N) values among those chosen; infinite where none is."""
    low = np.where(chosen, s, np.inf).min(1, initial=np.inf)
    return low, np.where(chosen, s, -np.inf).max(1, initial=-np.inf)


def _width(s: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(C,) greatest less least of the chosen values, 0 where none is."""
    low, high = _extent(s, chosen)
    return np.where(np.isfinite(low), high, 0.0) - np.where(np.isfinite(low), low, 0.0)
