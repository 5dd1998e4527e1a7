"""A point that has to reach a mark: a whole `Simulator` that steps in microseconds, for tests of what drives it.

It is not LIBERO and says so in its provenance; tests that need physics use the real one. Nothing here imports torch,
which would cost every process that a simulator is isolated in two seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.normalisation import FieldStatistics, Statistics
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SimulatorFailure, SuiteSpec

POINT_SUITE = SuiteSpec(
    name="point", instructions=("reach the mark on the right", "reach the mark on the left"),
    max_steps=24, num_initial_states=5,
)  # fmt: skip
SPEED, REACH = 0.1, 0.25
MARKS = np.array([[0.8, 0.0], [-0.8, 0.0]])


class PointSimulator:
    """A point in [-1, 1]^2, started at random on the middle line, moved by the first two action dimensions.

    Args:
        fail_every: every so many chunks the simulator breaks, as a diverged physics engine would; 0 never.
    """

    def __init__(self, config: SimulatorConfig, fail_every: int = 0) -> None:
        self.spec, self.config = POINT_SUITE, config
        self._fail_every, self._chunks = fail_every, 0
        self._task, self._steps, self._position = 0, 0, np.zeros(2)

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        return POINT_SUITE

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        return {}

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        drawn = np.random.default_rng(seed if initial_state is None else 10_000 + initial_state)
        self._task, self._steps = task, 0
        self._position = np.array([drawn.uniform(-0.2, 0.2), drawn.uniform(-0.6, 0.6)])
        return self._observe()

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        self._chunks += 1
        if self._fail_every and self._chunks % self._fail_every == 0:
            raise SimulatorFailure("the point fell off the plane")
        limit = self.config.max_steps or self.spec.max_steps
        duration, success = 0, False
        for action in actions:
            self._position = np.clip(self._position + SPEED * action[:2], -1.0, 1.0)
            self._steps, duration = self._steps + 1, duration + 1
            success = bool(np.linalg.norm(self._position - MARKS[self._task]) < REACH)
            if success or self._steps >= limit:
                break
        truncated = self._steps >= limit and not success
        return ChunkResult(self._observe(), float(success), success, truncated, duration)

    def frames(self) -> list[np.ndarray]:
        return []

    def provenance(self) -> dict[str, Any]:
        return {"simulator": "point (tests only)", "suite": self.spec.name}

    def close(self) -> None:
        self._chunks = -(10**9)

    def _observe(self) -> Observation:
        size = self.config.image_size
        images = np.zeros((2, size, size, 3), np.uint8)
        for channel, place in ((0, self._position), (1, MARKS[self._task])):
            x, y = ((place + 1) / 2 * (size - 5)).astype(int)
            images[:, y : y + 4, x : x + 4, channel] = 255
        proprio = np.concatenate([self._position, MARKS[self._task], np.zeros(4)]).astype(np.float32)
        return Observation(images, proprio, self.spec.instructions[self._task])


def make_point_simulator(config: SimulatorConfig) -> PointSimulator:
    return PointSimulator(config)


def make_breaking_point_simulator(config: SimulatorConfig) -> PointSimulator:
    """Breaks at every fifth chunk."""
    return PointSimulator(config, fail_every=5)


def refuse_point_simulator(config: SimulatorConfig) -> PointSimulator:
    """Refuses as a simulator does whose assets are not there."""
    raise InputError("the plane is not here: install it")


def point_statistics() -> Statistics:
    """Units in which actions and proprioception are already normalised."""

    def field(width: int, gripper: bool) -> FieldStatistics:
        ones = np.ones(width)
        mask = np.ones(width, bool)
        mask[-1] = not gripper
        return FieldStatistics(-ones, ones, 0 * ones, ones, -ones, ones, mask)

    return Statistics("point", field(7, True), field(8, False), episodes=1, steps=1)
