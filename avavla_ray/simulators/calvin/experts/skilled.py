"""An expert that repeats one skill until its task is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.experts.arm import Arm, Motion
from avavla_ray.simulators.calvin.experts.scene import PlayTable

if TYPE_CHECKING:
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator

Skill = Callable[[Arm, PlayTable, int], Motion]


class SkillExpert:
    """Plays a skill from wherever the arm is, and plays it again when it ended without success."""

    def __init__(self, simulator: CalvinSimulator, skill: Skill, *, seed: int = 0, noise: float = 0.0) -> None:
        """Start from the present state of `simulator`.

        Args:
            noise: standard deviation of Gaussian noise on the motion of moving phases, in action units.

        Raises:
            InputError: `noise` is negative.
        """
        if noise < 0:
            raise InputError(f"expert noise {noise} is negative: give 0 or more")
        self._arm, self._table = Arm(simulator.env), PlayTable(simulator.env)
        self._rng, self._noise = np.random.default_rng(seed), noise
        self._actions = self._attempts(skill)

    def _attempts(self, skill: Skill) -> Motion:
        attempt = 0
        while True:
            yield from skill(self._arm, self._table, attempt)
            # Keeps the loop turning when there was nothing for the skill to do.
            yield from self._arm.wait("again", 1)
            attempt += 1

    def act(self) -> np.ndarray:
        """(7,) float32 action in [-1, 1] for the next environment step."""
        action = next(self._actions)
        if self._noise and self._arm.moving:
            action[:6] += self._rng.normal(0, self._noise, 6)
            action = np.clip(action, -1, 1).astype(np.float32)
        return action

    @property
    def phase_name(self) -> str:
        return self._arm.phase
