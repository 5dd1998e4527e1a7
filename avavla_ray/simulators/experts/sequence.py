"""The expert for LIBERO: one skill after the other until the task's goals hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avavla_ray.simulators.experts.expert import NoExpert
from avavla_ray.simulators.experts.goals import ordered, skill_for
from avavla_ray.simulators.experts.hand import OPEN, Hand
from avavla_ray.simulators.experts.noise import MotionNoise
from avavla_ray.simulators.experts.scene import Motion, Scene, Skill

if TYPE_CHECKING:
    from avavla_ray.simulators.libero.adapter import LiberoSimulator


class Idle:
    """Stays where it is until the time is up."""

    finished = False
    phase_name = "at a loss"

    def __init__(self, hand: Hand) -> None:
        self._motion = Motion(hand.position, hand.rotation, OPEN, delicate=True)

    def step(self) -> Motion:
        """See `Skill.step`."""
        return self._motion


class SkillSequence:
    """Meets the goals of a task in a sensible order, and goes back to one that has been undone or missed.

    Attributes:
        skill: what it is busy with. intended: see `Expert`.
    """

    def __init__(self, simulator: LiberoSimulator, *, seed: int = 0, noise: float = 0.0) -> None:
        """Plan from the present state of `simulator`, which must have been reset.

        Args:
            seed: of the noise. noise: standard deviation of the noise on the motion, in action units.

        Raises:
            NoExpert: there is no skill for one of the task's goals. InputError: `noise` is negative.
        """
        self._noise = MotionNoise(noise, 6, seed=seed)
        self._scene = Scene.of(simulator)
        self._goals = ordered(self._scene.goals)
        for goal in self._goals:
            skill_for(self._scene, goal)
        self.skill: Skill = self._due()

    @property
    def phase_name(self) -> str:
        return self.skill.phase_name

    def act(self) -> np.ndarray:
        """(7,) float32 action in [-1, 1] for the next environment step."""
        if self.skill.finished:
            self.skill = self._next()
        motion = self.skill.step()
        self.intended = self._scene.hand.action(motion.position, motion.rotation, motion.gripper, motion.speed)
        return self._noise.disturbed(self.intended, still=motion.delicate)

    def _next(self) -> Skill:
        try:
            return self._due()
        except NoExpert:
            # The episode took a turn that no skill gets out of, such as a drawer half shut: an attempt that fails.
            return Idle(self._scene.hand)

    def _due(self) -> Skill:
        unmet = [goal for goal in self._goals if not self._scene.holds(goal)]
        return skill_for(self._scene, unmet[0] if unmet else self._goals[-1])
