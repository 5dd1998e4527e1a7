"""A runner that also counts what it decides, and can play its simulators without a policy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from actors.env_runner import SimulatorEnvRunner
from avavla_ray.simulators.isolated.side_by_side import begin_chunk, finish_chunk, wait_for

Beats = list[tuple[float, int]]  # when (monotonic clock, the same in all processes of a machine), how many decisions


class MeasuredRunner(SimulatorEnvRunner):
    """As a run's runners, to every decision."""

    def start(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """See `SimulatorEnvRunner.start`."""
        described = super().start(*arguments, **options)
        translation: Any = self.rollout.placement.translation
        plain = translation.actions
        self._beats: Beats = []

        def counted(chunk: np.ndarray) -> np.ndarray:
            self._chunks = plain(chunk)
            self._beats.append((time.monotonic(), len(chunk)))
            return self._chunks

        translation.actions = counted
        return described

    def take_beats(self) -> Beats:
        """What was decided since the last call."""
        beats, self._beats = self._beats, []
        return beats

    def decide_in(self, precision: str) -> None:
        """Let the copy of the policy compute in "float32" or "bfloat16" from now on."""
        placement: Any = self.rollout.placement
        placement.policy.set_precision(precision)

    def is_quiet(self) -> bool:
        """Whether no simulator is at anything. After an order in lockstep one may still be resetting."""
        return not any(slot.flying for slot in self.rollout._slots)

    def simulate(self, seconds: float) -> tuple[Beats, int, int]:
        """The null policy: the last chunk that was decided, again and again, so that the arms move as they do with the
        policy. Every simulator goes on as soon as it is done; nothing is recorded.

        It must be quiet before, and is so after.

        Returns:
            Its beats; chunks and environment steps executed.
        """
        simulators, beats, chunks, steps = self.rollout.simulators, Beats(), 0, 0
        actions = {id(simulator): self._chunks[at % len(self._chunks)] for at, simulator in enumerate(simulators)}
        end, flying = time.monotonic() + seconds, list(simulators)
        for simulator in simulators:
            begin_chunk(simulator, actions[id(simulator)])
        while flying:
            ready = wait_for(flying, None, 1.0)
            for simulator in [simulator for simulator in flying if id(simulator) in ready]:
                result = finish_chunk(simulator, actions[id(simulator)])
                chunks, steps = chunks + 1, steps + result.duration
                if result.done:
                    simulator.reset(self.config.simulator.tasks[0], seed=steps)
                now = time.monotonic()
                if now < end:
                    begin_chunk(simulator, actions[id(simulator)])
                    beats.append((now, 1))
                else:
                    flying.remove(simulator)
        return beats, chunks, steps
