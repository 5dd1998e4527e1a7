"""Picking a thing up and putting it down: a small state machine over the true state of the scene."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

import numpy as np

from avavla_ray.simulators.experts.destination import Destination
from avavla_ray.simulators.experts.geometry import SolidPoints
from avavla_ray.simulators.experts.grasp import MAX_WIDTH, Grasp, overhang_escape, plan_grasp
from avavla_ray.simulators.experts.hand import CLOSE, OPEN
from avavla_ray.simulators.experts.pinch import above_own_floor, has_hold, plan_pinch
from avavla_ray.simulators.experts.scene import Motion, Scene

HOVER = 0.10  # above a grasp before descending, metres
CARRY_CORRIDOR, CARRY_GAP = 0.11, 0.03  # obstacles this near the straight way count; pass this high above them
# The open hand hits what is this near the straight way, and no lower than this below the grip site; metres.
PASSING_CORRIDOR, PASSING_GAP = 0.09, 0.02
NEAR_BY = 0.04  # horizontal distance from a grasp at which the hand starts to come down from a detour, metres
FINE = 0.006  # spacing of the points of a thing among which a place to pinch is sought, metres
OBSTRUCTED = 5.0  # a grasp that costs this much has something in its way
GENTLY = 0.6  # share of full speed at which a thing that is held by a small part of it is carried
FLAT = 0.025  # lower than this, metres, and a dish cannot be lifted by its rim
LIFTED = 0.02  # an object that rose by less has slipped
LOST = 0.1  # an object that moved this far from where the hand held it has been lost; a bowl may swing
# When a phase has got where it wants to be; metres, radians, and metres a step for fingers that stand still.
OVER_GRASP, STRAIGHT, AT_GRASP, AT_DEPTH = 0.012, 0.08, 0.008, 0.005
FINGERS_STILL, LEAST_GRIP_STEPS = 4e-4, 6
NEAR_TOP, OUTSIDE, OVER_TARGET, AT_RELEASE = 0.02, 0.006, 0.015, 0.006
LEAST_LIFT, RETREAT = 0.08, 0.12


class Phase(Enum):
    """What the hand is doing; each lasts until it is achieved or its limit of steps is reached."""

    REACH = auto()
    DESCEND = auto()
    GRIP = auto()
    LIFT = auto()
    CARRY = auto()
    LOWER = auto()
    RELEASE = auto()
    RETREAT = auto()


LIMITS = {
    Phase.REACH: 50, Phase.DESCEND: 30, Phase.GRIP: 20, Phase.LIFT: 40, Phase.CARRY: 60, Phase.LOWER: 45,
    Phase.RELEASE: 8, Phase.RETREAT: 15,
}  # fmt: skip
FOLLOWING = {
    Phase.REACH: Phase.DESCEND, Phase.DESCEND: Phase.GRIP, Phase.GRIP: Phase.LIFT, Phase.LIFT: Phase.CARRY,
    Phase.CARRY: Phase.LOWER, Phase.LOWER: Phase.RELEASE, Phase.RELEASE: Phase.RETREAT,
}  # fmt: skip


def too_flat_to_lift(scene: Scene, name: str) -> bool:
    """Whether an object is wider than the hand, with a rim so low that the fingers find no hold."""
    size = np.ptp(SolidPoints(scene.model, scene.body(name)).world(scene.data), axis=0)
    return bool(size[2] < FLAT and size[:2].min() > MAX_WIDTH)


class PickPlace:
    """Meets an "on" or "in" goal: takes the object and puts it there, and takes it again when it slips.

    Attributes:
        phase: what it is doing.
        grasp: the hold in use.
    """

    def __init__(self, scene: Scene, name: str, destination: Destination) -> None:
        """Plan from the present state of `scene` how to bring the object `name` to its destination."""
        self._scene, self._hand = scene, scene.hand
        self._destination = destination
        self._body = scene.body(name)
        self._solid = SolidPoints(scene.model, self._body)
        self._dense = SolidPoints(scene.model, self._body, spacing=FINE)
        self._others = scene.solids(excluding=name)
        self.finished = False
        # Where holds have failed, from the middle of the thing.
        self._slipped: list[np.ndarray] = []
        self._behaviour: dict[Phase, Callable[[], tuple[np.ndarray, float, bool]]] = {
            Phase.REACH: self._reach, Phase.DESCEND: self._descend, Phase.GRIP: self._grip, Phase.LIFT: self._lift,
            Phase.CARRY: self._carry, Phase.LOWER: self._lower, Phase.RELEASE: self._release,
            Phase.RETREAT: self._retreat,
        }  # fmt: skip
        self._start()

    def step(self) -> Motion:
        """See `Skill.step`."""
        if self._dropped():
            self._start()
        self._steps += 1
        phase = self.phase
        position, gripper, achieved = self._behaviour[phase]()
        motion = Motion(
            position, self._rotation, gripper, delicate=phase in (Phase.GRIP, Phase.RELEASE),
            speed=GENTLY if self.grasp.pinch and phase is Phase.CARRY else 1.0,
        )  # fmt: skip
        if achieved or self._steps >= LIMITS[phase]:
            self._advance()
        return motion

    def _start(self) -> None:
        self.grasp: Grasp = self._hold()
        self._middle = self._dense.world(self._scene.data)[:, :2].mean(0)
        self._rotation = self._hand.pointing_down(self._hand.untwisted(self.grasp.turn))
        self._enter(Phase.REACH)

    def _hold(self) -> Grasp:
        """The simple hold if it is free and sound, else, and after it has slipped, the cheapest that a search finds."""
        yaw, shoulder, obstacles = self._hand.closing_yaw, self._hand.shoulder, self._obstacles()
        simple = plan_grasp(self._points(), obstacles, yaw, shoulder)
        dense = self._dense.world(self._scene.data)
        if simple.rim:
            simple = above_own_floor(dense, simple, yaw)
        sound = not simple.rim or has_hold(dense, simple, yaw)
        if sound and simple.cost < OBSTRUCTED and len(self._slipped) % 2 == 0:
            return simple
        slipped = tuple(dense[:, :2].mean(0) + offset for offset in self._slipped)
        found = plan_pinch(dense, obstacles, yaw, shoulder, dense[:, 2].min(), slipped)
        return found if found and (found.cost < max(simple.cost, OBSTRUCTED) or not sound) else simple

    @property
    def phase_name(self) -> str:
        return self.phase.name.lower()

    def _enter(self, phase: Phase) -> None:
        self.phase, self._steps, self._opening = phase, 0, np.inf
        self._anchor = self._hand.position
        if phase is Phase.REACH:
            self._detour = self._height_to_pass()
        elif phase is Phase.LIFT:
            self._floor = self._points()[:, 2].min()
            self._height = self._carry_height()
            self._exit = self.grasp.position[:2] + overhang_escape(self._points(), self._obstacles())
        elif phase is Phase.CARRY:
            self._held = self._in_hand()

    def _dropped(self) -> bool:
        if self.phase in (Phase.CARRY, Phase.LOWER):
            return bool(np.linalg.norm(self._in_hand() - self._held) > LOST)
        return False

    def _in_hand(self) -> np.ndarray:
        """(3,) the object's origin relative to the hand, metres."""
        return self._scene.data.xpos[self._body] - self._hand.position

    def _advance(self) -> None:
        if self.phase is Phase.RETREAT:
            self.finished = True
        elif self.phase is Phase.LIFT and self._points()[:, 2].min() < self._floor + LIFTED:
            self._slipped.append(self.grasp.position[:2] - self._middle)
            self._start()
        else:
            self._enter(FOLLOWING[self.phase])

    def _points(self) -> np.ndarray:
        return self._solid.world(self._scene.data)

    def _obstacles(self) -> np.ndarray:
        return np.concatenate([np.zeros((0, 3)), *(solid.world(self._scene.data) for solid in self._others)])

    def _height_to_pass(self) -> float:
        """Height above everything that the hand would hit on the straight way to the grasp; -inf if nothing is."""
        start, end = self._anchor, self.grasp.position + np.array([0, 0, HOVER])
        way, obstacles = end - start, self._obstacles()
        along = (obstacles[:, :2] - start[:2]) @ way[:2] / max(way[:2] @ way[:2], 1e-6)
        beside = np.linalg.norm(obstacles[:, :2] - start[:2] - along[:, None] * way[:2], axis=1)
        low = obstacles[:, 2] < start[2] + np.clip(along, 0, 1) * way[2] - PASSING_GAP
        hit = (along > 0) & (along < 1) & (beside < PASSING_CORRIDOR) & ~low
        return float(obstacles[hit, 2].max(initial=-np.inf)) + CARRY_GAP

    def _carry_height(self) -> float:
        """Height of the hand at which what it holds clears everything near the straight way to the destination."""
        start, way = self._anchor[:2], self._destination.centre() - self._anchor[:2]
        obstacles = self._obstacles()
        along = np.clip((obstacles[:, :2] - start) @ way / max(way @ way, 1e-6), 0, 1)
        distance = np.linalg.norm(obstacles[:, :2] - start - along[:, None] * way, axis=1)
        tops = obstacles[distance < CARRY_CORRIDOR, 2]
        underside = max([self._destination.approach_height(), *(tops + CARRY_GAP)])
        return max(underside + self._anchor[2] - self._floor, self._anchor[2] + LEAST_LIFT)

    # Each phase answers where the hand should go, what the gripper does, and whether the phase is over.

    def _reach(self) -> tuple[np.ndarray, float, bool]:
        away = np.linalg.norm(self._hand.position[:2] - self.grasp.position[:2])
        over = self.grasp.position + np.array([0, 0, HOVER])
        if away > NEAR_BY:
            over[2] = max(over[2], self._detour)
        askew = np.linalg.norm(self._hand.rotation_error(self._rotation))
        return over, OPEN, bool(away < OVER_GRASP and askew < STRAIGHT)

    def _descend(self) -> tuple[np.ndarray, float, bool]:
        error = np.abs(self._hand.position - self.grasp.position)
        return self.grasp.position, OPEN, bool(error[2] < AT_DEPTH and np.linalg.norm(error[:2]) < AT_GRASP)

    def _grip(self) -> tuple[np.ndarray, float, bool]:
        # A fixed number of steps is not enough for thin rims: wait until the fingers stand still.
        opening, before = self._hand.opening, self._opening
        self._opening = opening
        still = self._steps >= LEAST_GRIP_STEPS and abs(opening - before) < FINGERS_STILL
        return self.grasp.position, CLOSE, still

    def _lift(self) -> tuple[np.ndarray, float, bool]:
        hand = self._hand.position
        # Come out from under an overhang first: bowls in a drawer lie partly below the cabinet's top.
        below = hand[2] < self._anchor[2] + NEAR_TOP and np.linalg.norm(hand[:2] - self._exit) > OUTSIDE
        place = np.array([*self._exit, self._anchor[2] if below else self._height])
        return place, CLOSE, bool(hand[2] > self._height - NEAR_TOP)

    def _carry(self) -> tuple[np.ndarray, float, bool]:
        place = np.array([*(self._destination.centre() - self._in_hand()[:2]), self._height])
        return place, CLOSE, bool(np.linalg.norm(place[:2] - self._hand.position[:2]) < OVER_TARGET)

    def _lower(self) -> tuple[np.ndarray, float, bool]:
        underside = self._points()[:, 2].min() - self._hand.position[2]
        height = self._destination.release_height() - underside
        place = np.array([*(self._destination.centre() - self._in_hand()[:2]), height])
        return place, CLOSE, bool(abs(self._hand.position[2] - height) < AT_RELEASE)

    def _release(self) -> tuple[np.ndarray, float, bool]:
        return self._anchor, OPEN, False

    def _retreat(self) -> tuple[np.ndarray, float, bool]:
        return self._anchor + np.array([0, 0, RETREAT]), OPEN, False
