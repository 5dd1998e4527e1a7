"""Puts a scene into a state in which its task is done: joints are set, objects are let down where they belong.

A goal that no such state satisfies can't be learnt either, so the bundled assets are checked with this.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avavla_ray.simulators.libero.adapter import LiberoSimulator

Goal = tuple[str, ...]

ATTEMPTS = 150
# Heights at which an object is tried, from the region's floor upwards, metres.
RISE = 0.003
# An object that is let down may sink into others by less than this, metres.
TOUCHING = 0.0005
RESTING_STEPS = 150
# Upright, leaning on a slope, lying: degrees about the x or y axis of what carries the object.
TILTS = (("x", 0.0), ("x", -60.0), ("x", 90.0), ("y", 90.0), ("x", 60.0), ("x", -90.0), ("y", -90.0))
YAWS = (0.0, 90.0, 180.0, 270.0)
AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Target:
    """Where an object belongs: a point, half extents along the world's axes, and (w, x, y, z) of what carries it."""

    centre: np.ndarray
    half: np.ndarray
    turn: np.ndarray


class GoalState:
    """Works on the scene that a `LiberoSimulator` has reset, and changes its state.

    Args:
        simulator: the simulator, after `reset`. seed: of the places that are tried.
    """

    def __init__(self, simulator: LiberoSimulator, seed: int = 0) -> None:
        self.scene = simulator.env.env
        self.model, self.data = simulator.model, simulator.data
        self.rng = np.random.default_rng(seed)
        # What keeps still while things come to rest: the arm as it is, and joints that a goal sets.
        names = [self.model.joint(i).name for i in range(self.model.njnt)]
        self.held = {
            name: float(self.data.joint(name).qpos[0]) for name in names if name.startswith(("robot0", "gripper0"))
        }

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Predicates of the task, all of which must hold."""
        return tuple(tuple(goal) for goal in self.scene.parsed_problem["goal_state"])

    def holds(self, goal: Goal) -> bool:
        """Whether `goal` is true in the present state."""
        return bool(self.scene._eval_predicate(list(goal)))

    def reach(self) -> tuple[Goal, ...]:
        """Bring about every goal; returns those that could not be."""
        for goal in self.goals:
            if len(goal) == 2:
                self._articulate(goal)
        for goal in self._placements():
            self._place(goal)
        return tuple(goal for goal in self.goals if not self.holds(goal))

    def _placements(self) -> Iterator[Goal]:
        """Goals of two objects: what carries another goes to its place first."""
        waiting = [goal for goal in self.goals if len(goal) == 3]
        while waiting:
            goal = next(goal for goal in waiting if all(goal[2] != other[1] for other in waiting))
            waiting.remove(goal)
            yield goal

    def _articulate(self, goal: Goal) -> None:
        """Set the joints of a drawer, a door or a knob to the middle of the range that LIBERO names for the goal."""
        verb, name = goal
        site = self.scene.object_sites_dict.get(name)
        owner = self.scene.get_object(name if site is None else site.parent_name)
        low, high = owner.object_properties["articulation"][f"default_{verb.lower()}_ranges"]
        for joint in owner.joints if site is None else site.joints:
            self.held[joint] = (low + high) / 2
        self._step(1)

    def _hold_still(self) -> None:
        for joint, position in self.held.items():
            self.data.joint(joint).qpos = position
            self.data.joint(joint).qvel = 0

    def _step(self, steps: int) -> None:
        import mujoco

        for _ in range(steps):
            self._hold_still()
            mujoco.mj_step(self.model, self.data)
        self._hold_still()
        mujoco.mj_forward(self.model, self.data)

    def _target(self, name: str) -> Target:
        site = self.scene.object_sites_dict.get(name)
        if site is None:
            body = self.data.body(self.scene.obj_body_id[name])
            return Target(body.xpos.copy(), np.array([0.01, 0.01, 0.0]), np.array([1.0, 0, 0, 0]))
        place = self.data.site(name)
        parent = self.scene.obj_body_id.get(site.parent_name)
        turn = np.array([1.0, 0, 0, 0]) if parent is None else self.data.xquat[parent].copy()
        return Target(place.xpos.copy(), np.abs(place.xmat.reshape(3, 3) @ site.size), turn)

    def _place(self, goal: Goal) -> None:
        """Let the object down at several places and turns until it rests where the goal wants it."""
        target = self._target(goal[2])
        joint = self.data.joint(self.scene.get_object(goal[1]).joints[0])
        start, turns = self.data.qpos.copy(), _turns(joint.qpos[3:].copy(), target.turn)
        for attempt, turn in zip(range(ATTEMPTS), itertools.cycle(turns), strict=False):
            self.data.qpos[:], self.data.qvel[:] = start, 0
            spread = min(1.0, 2.0 * attempt / ATTEMPTS)
            place = target.centre + self.rng.uniform(-spread, spread, 3) * target.half
            if self._let_down(goal, target, place, turn):
                self._step(RESTING_STEPS)
                if self.holds(goal):
                    return
        self.data.qpos[:], self.data.qvel[:] = start, 0
        self._step(1)

    def _let_down(self, goal: Goal, target: Target, place: np.ndarray, turn: np.ndarray) -> bool:
        """Put the object at the lowest height above `place` where it is in its region and touches nothing."""
        import mujoco

        joint = self.data.joint(self.scene.get_object(goal[1]).joints[0])
        low, high = target.centre[2] - target.half[2] - 0.05, target.centre[2] + target.half[2] + 0.15
        for height in np.arange(low, high, RISE):
            position = np.array([place[0], place[1], height])
            if self._is_placed(goal, position):
                joint.qpos[:3], joint.qpos[3:] = position, turn
                self._hold_still()
                mujoco.mj_fwdPosition(self.model, self.data)
                if self._depth(goal[1]) < TOUCHING:
                    return True
        return False

    def _is_placed(self, goal: Goal, position: np.ndarray) -> bool:
        """What the goal says about the object's position, before it says anything about contact."""
        verb, _, name = goal
        site = self.scene.object_sites_dict.get(name)
        if site is None:
            return bool(position[2] >= self.data.xpos[self.scene.obj_body_id[name]][2])
        place = self.data.site(name)
        check = site.in_box if verb.lower() == "in" else site.under
        return bool(check(place.xpos, place.xmat.reshape(3, 3), position))

    def _depth(self, name: str) -> float:
        """How deep the object sinks into others, metres."""
        root = self.model.body_rootid[self.scene.obj_body_id[name]]
        owners = self.model.body_rootid[self.model.geom_bodyid]
        contacts = self.data.contact[: self.data.ncon]
        return max((-c.dist for c in contacts if root in (owners[c.geom1], owners[c.geom2])), default=0.0)


def _turns(upright: np.ndarray, frame: np.ndarray) -> list[np.ndarray]:
    """(w, x, y, z) to try: as it stands, turned about the vertical, and tilted in the frame of what carries it."""
    import mujoco

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        result = np.zeros(4)
        mujoco.mju_mulQuat(result, a, b)
        return result

    def rotation(axis: str, degrees: float) -> np.ndarray:
        result = np.zeros(4)
        mujoco.mju_axisAngle2Quat(result, np.array(AXES[axis]), np.radians(degrees))
        return result

    back = frame * [1, -1, -1, -1]
    result = []
    for axis, tilt in TILTS:
        lean = product(product(frame, rotation(axis, tilt)), back)
        result += [product(lean, product(rotation("z", yaw), upright)) for yaw in YAWS]
    return result
