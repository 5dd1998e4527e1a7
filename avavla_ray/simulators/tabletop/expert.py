"""A scripted expert for every table-top task: it sees the true state and acts one environment step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.experts.noise import MotionNoise
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.simulators.tabletop.scene import BLOCK_HALF, ZONE_X
from avavla_ray.simulators.tabletop.tasks import Task
from avavla_ray.simulators.tabletop.world import GRIPPER, MOVED_BY, UNIT

OPEN, CLOSE = -1.0, 1.0
GAIN = 1.2  # above 1 because the rails cover only part of a commanded step within one environment step
ABOVE = 0.06  # metres over a block's centre: open fingertips pass over every block
BEHIND = 0.055  # metres from a block's centre: closed fingers come down beside it whatever its yaw
CLEAR = 0.11  # metres, height of a carried block's centre
PHASE_LIMIT = 30  # steps after which a phase ends, reached or not


def make_tabletop_expert(simulator: TabletopSimulator, *, seed: int = 0, noise: float = 0.0) -> TabletopExpert:
    """See `make_expert`."""
    if simulator.task is None:
        raise InputError("the simulator has no task yet: reset it before making an expert")
    return TabletopExpert(simulator, simulator.task, seed=seed, noise=noise)


class TabletopExpert:
    """Goes through the phases of its task, and through them again while the task is not done.

    Attributes:
        phase_name: what it is doing, in a word. intended: see `Expert`.
    """

    def __init__(self, simulator: TabletopSimulator, task: Task, *, seed: int, noise: float) -> None:
        self._world, self._task = simulator.world, task
        self._noise = MotionNoise(noise, 3, seed=seed)
        self.phase_name = "start"
        self._script = self._attempts()

    def act(self) -> np.ndarray:
        """(7,) float32 action in [-1, 1]; noise is added to x, y and z, since most tasks have no use for yaw at all."""
        self.intended = np.clip(next(self._script), -1.0, 1.0).astype(np.float32)
        return self._noise.disturbed(self.intended)

    def _attempts(self) -> Iterator[np.ndarray]:
        plan = {
            "reach": self._reach, "recall": self._reach, "push": self._push, "lift": self._lift, "stack": self._stack,
        }[self._task.kind]  # fmt: skip
        while True:
            yield from plan()

    def _reach(self) -> Iterator[np.ndarray]:
        yield from self._go("above", lambda: self._over(ABOVE), OPEN, near=0.015)
        yield from self._go("down", lambda: self._over(0.0), OPEN, near=0.005)

    def _push(self) -> Iterator[np.ndarray]:
        world, block = self._world, self._task.block
        side = np.sign(ZONE_X[self._task.goal])

        def behind(height: float) -> np.ndarray:
            x, y, z = world.block(block)
            return np.array([x - side * BEHIND, y, z + height, 0.0])

        def through() -> np.ndarray:
            x, y, z = world.block(block)
            return np.array([x + side * BEHIND, y, z, 0.0])

        yield from self._go("behind", lambda: behind(ABOVE), CLOSE, near=0.015)
        yield from self._go("down", lambda: behind(0.0), CLOSE, near=0.012)
        yield from self._go("push", through, CLOSE, near=0.0, limit=2 * PHASE_LIMIT)

    def _grasp(self) -> Iterator[np.ndarray]:
        yield from self._go("above", lambda: self._over(ABOVE, aligned=True), OPEN, near=0.012)
        yield from self._go("down", lambda: self._over(0.0, aligned=True), OPEN, near=0.005)
        here = self._world.gripper
        yield from self._go("close", lambda: here, CLOSE, near=0.0, limit=3)

    def _lift(self) -> Iterator[np.ndarray]:
        yield from self._grasp()
        yield from self._go("lift", lambda: self._holding_block_at(self._world.block(self._task.block)[:2], CLEAR))

    def _stack(self) -> Iterator[np.ndarray]:
        world, block, base = self._world, self._task.block, self._task.goal
        yield from self._grasp()
        yield from self._go("lift", lambda: self._holding_block_at(world.block(block)[:2], CLEAR))
        yield from self._go("carry", lambda: self._holding_block_at(world.block(base)[:2], CLEAR), near=0.008)
        on_top = 3 * BLOCK_HALF + 0.002
        yield from self._go("lower", lambda: self._holding_block_at(world.block(base)[:2], on_top), near=0.004)
        here = world.gripper
        yield from self._go("release", lambda: here, OPEN, near=0.0, limit=3)
        yield from self._go("retreat", lambda: here + np.array([0, 0, ABOVE, 0]), OPEN)

    def _over(self, height: float, *, aligned: bool = False) -> np.ndarray:
        """(4,) gripper over the block by `height`, turned as the block is or not at all."""
        yaw = self._world.block_yaw(self._task.block) if aligned else 0.0
        x, y, z = self._world.block(self._task.block)
        return np.array([x, y, z + height, yaw])

    def _holding_block_at(self, xy: np.ndarray, z: float) -> np.ndarray:
        """(4,) gripper that brings the block in it to a place."""
        gripper = self._world.gripper
        gripper[:3] += np.array([*xy, z]) - self._world.block(self._task.block)
        return gripper

    def _go(
        self, name: str, goal: Callable[[], np.ndarray], gripper: float = CLOSE, *, near: float = 0.01,
        limit: int = PHASE_LIMIT,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Move to where `goal` says the gripper should be, (4,), until within `near` metres of it."""
        for _ in range(limit):
            error = goal() - self._world.gripper
            if np.linalg.norm(error[:3]) < near and abs(error[3]) < 0.1:
                return
            self.phase_name = name
            step = GAIN * error / UNIT
            # A far place is approached in a straight line: the step is shortened, not clipped axis by axis.
            step[:3] /= max(1.0, np.abs(step[:3]).max())
            action = np.zeros(7)
            action[list(MOVED_BY)] = step
            action[GRIPPER] = gripper
            yield action
