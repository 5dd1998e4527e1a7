"""Chains of CALVIN tasks in a process of their own: the simulator, and the scripted expert that needs its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig
from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.experts.expert import Expert, make_expert
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator


class CalvinWithExpert(CalvinSimulator):
    """A `CalvinSimulator` with the expert of its current task, so that both may live where their owner does not."""

    _expert: Expert | None = None

    def run_expert(self, steps: int) -> ChunkResult:
        """Let the expert act for `steps` steps, or until the task ends; another task gets another expert.

        Raises:
            InputError: fewer than one step, or no episode is running.
            SimulatorFailure: as from `run_chunk`.
        """
        if steps < 1:
            raise InputError(f"{steps} steps of the expert: give at least 1")
        if not self._running:
            raise InputError("no episode is running: call reset first")
        duration, done = 0, False
        while not done and duration < steps:
            with self._failing_loudly():
                if self._expert is None:
                    self._expert = self._expert_of_task()
                action = self._expert.act()
            result = self.run_chunk(action[None])
            duration, done = duration + 1, result.done
        return replace(result, duration=duration)

    def _expert_of_task(self) -> Expert:
        return make_expert(self)

    def _begin(self, name: str) -> Observation:
        self._expert = None
        return super()._begin(name)


class IsolatedCalvin(IsolatedSimulator):
    """CALVIN in another process, with what chains need besides the methods of `Simulator`.

    Whatever becomes of that process, or of one of its deadlines, is a SimulatorFailure and the end of the chain; the
    next chain begins in another process.

    Args:
        config: for the simulator. limits: what its process is killed for.
        factory: makes it, in its process.
    """

    def __init__(
        self,
        config: SimulatorConfig,
        limits: Limits | None = None,
        factory: Callable[[SimulatorConfig], CalvinSimulator] = CalvinWithExpert,
    ) -> None:
        super().__init__(factory, config, limits)

    def begin_sequence(self, sequence: Sequence) -> Observation:
        """See `CalvinSimulator.begin_sequence`."""
        return self.begin_episode("begin_sequence", sequence)

    def next_task(self) -> Observation:
        """See `CalvinSimulator.next_task`."""
        return self.begin_episode("next_task")

    def run_expert(self, steps: int) -> ChunkResult:
        """See `CalvinWithExpert.run_expert`."""
        return self.run_steps("run_expert", steps)
