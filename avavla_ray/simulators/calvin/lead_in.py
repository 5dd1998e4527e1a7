"""Starts of single tasks as chains have them: where another task has just ended.

A drawn start (starts.py) has the hand near its published pose. Of the evaluation's tasks only the first of a chain
begins so; the others begin the moment the one before counts, with the hand in the drawer, behind a handle or around a
block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avavla_ray.simulators.base import Observation, SimulatorFailure
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.calvin.training_chains import draw_before
from avavla_ray.simulators.episodes import start_random
from avavla_ray.simulators.experts.expert import make_expert

if TYPE_CHECKING:
    from avavla_ray.simulators.calvin.adapter import CalvinSimulator

ATTEMPTS = 10


def begin_after_another(simulator: CalvinSimulator, task: int, *, seed: int, noise: float, speed: float) -> Observation:
    """Begin `task` where the expert has just done another one, which is not rendered.

    Args:
        seed: of the other task, its start and its expert. noise, speed: of that expert (`make_expert`).

    Raises:
        SimulatorFailure: the physics broke, or the expert failed in many draws.
    """
    random = start_random(None, seed)
    for _ in range(ATTEMPTS):
        condition, before = draw_before(TASKS[task], random)
        with simulator.unseen():
            simulator.begin_chain(condition, (before, TASKS[task]), seed, random)
            expert = make_expert(simulator, seed=int(random.integers(2**31)), noise=noise, speed=speed)
            while not (result := simulator.run_chunk(expert.act()[None])).done:
                pass
        if result.success:
            return simulator.next_task()
    raise SimulatorFailure(f"the expert did no task that {TASKS[task]} can follow, in {ATTEMPTS} draws")
