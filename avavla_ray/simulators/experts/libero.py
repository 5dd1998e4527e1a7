"""Which scripted expert solves which LIBERO task."""

from __future__ import annotations

from avavla_ray.errors import InputError
from avavla_ray.simulators.experts.expert import Expert
from avavla_ray.simulators.libero.adapter import LiberoSimulator


def make_libero_expert(simulator: LiberoSimulator, *, seed: int = 0, noise: float = 0.0) -> Expert:
    """See `make_expert`."""
    if simulator.task is None:
        raise InputError("the simulator has no task yet: reset it before making an expert")
    from avavla_ray.simulators.experts.sequence import SkillSequence

    return SkillSequence(simulator, seed=seed, noise=noise)
