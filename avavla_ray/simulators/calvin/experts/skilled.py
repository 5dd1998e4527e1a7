"""An expert that repeats one skill until its task is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.simulators.calvin.experts.arm import Arm, Motion
from avavla_ray.simulators.calvin.experts.scene import PlayTable
from avavla_ray.simulators.experts.noise import MotionNoise

if TYPE_CHECKING:
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator

Skill = Callable[[Arm, PlayTable, int], Motion]


class SkillExpert:
    """Plays a skill from wherever the arm is, and plays it again when it ended without success.

    Attributes:
        intended: see `Expert`.
    """

    def __init__(self, simulator: CalvinSimulator, skill: Skill, *, seed: int = 0, noise: float = 0.0) -> None:
        """Start from the present state of `simulator`.

        Args:
            noise: standard deviation of the noise on the motion of moving phases, in action units.

        Raises:
            InputError: `noise` is negative.
        """
        self._noise = MotionNoise(noise, 6, seed=seed)
        self._arm, self._table = Arm(simulator.env), PlayTable(simulator.env)
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
        self.intended = next(self._actions)
        return self._noise.disturbed(self.intended, still=not self._arm.moving)

    @property
    def phase_name(self) -> str:
        return self._arm.phase
