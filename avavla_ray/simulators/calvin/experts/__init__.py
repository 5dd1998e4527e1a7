"""Scripted experts for CALVIN's tasks: they demonstrate, and play chains without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avavla_ray.errors import InputError

if TYPE_CHECKING:
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator
    from avavla_ray.simulators.experts.expert import Expert


def make_calvin_expert(simulator: CalvinSimulator, *, seed: int = 0, noise: float = 0.0) -> Expert:
    """An expert for the task that `simulator` has just been reset to, or that a chain has come to.

    Args:
        seed: of the noise. noise: standard deviation of the noise on the motion, in action units.

    Raises:
        InputError: the simulator has no task yet, or `noise` is negative.
    """
    from avavla_ray.simulators.calvin.experts.skilled import SkillExpert
    from avavla_ray.simulators.calvin.experts.tasks import SKILLS

    if simulator.env is None or not simulator.task_name:
        raise InputError("the simulator has no task yet: reset it before making an expert")
    return SkillExpert(simulator, SKILLS[simulator.task_name], seed=seed, noise=noise)
