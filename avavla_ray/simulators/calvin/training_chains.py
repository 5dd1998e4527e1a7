"""CALVIN's chains as something to learn from: tasks in a row without a reset in between, from starts that are drawn.

In the suites calvin_a_chains to calvin_d_chains task n is a chain of n + 1 of the 34 tasks. A chain is one episode: the
oracle's reward is 1 for each of its tasks, a new instruction follows at once in the scene as it is, each task has the
benchmark's own step limit, and the episode is a success when the last one is done. So success at one length says
whether the next is worth playing, and sampling tasks by success (actors/curriculum.py) lengthens the chains as the
policy learns.

None of the 1,000 chains of the evaluation begins as these do: their starts are published, ours are drawn (starts.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.base import ChunkResult, Observation, SimulatorConfig, SuiteSpec
from avavla_ray.simulators.calvin.adapter import MAX_STEPS, CalvinSimulator
from avavla_ray.simulators.calvin.rules import Condition, outcomes
from avavla_ray.simulators.calvin.sequences import KINDS, LENGTH
from avavla_ray.simulators.calvin.starts import draw_condition
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.episodes import check_start, start_random
from avavla_ray.simulators.registry import CALVIN_CHAIN_SUITES, CHAINS

INSTRUCTIONS = ("one task", *(f"a chain of {length} tasks" for length in range(2, LENGTH + 1)))
DRAWS = 1000  # of a chain, before none is believed to exist


class CalvinTrainingChains:
    """Chains of tasks behind the `Simulator` interface.

    Actions, pictures and proprioception are those of `CalvinSimulator`; the instruction of an observation is that of
    the task in hand. `config.max_steps` is the limit of each task of a chain.

    Attributes:
        tasks: of the running chain.

    Raises:
        InputError: unknown suite or length, calvin_env or what it needs is missing.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.spec, self.config = self.suite_spec(config.suite), config
        for task in config.tasks:
            self._check_length(task)
        self.tasks: tuple[str, ...] = ()
        self._inner = CalvinSimulator(_single_tasks(config))
        self._done = 0

    @classmethod
    def suite_spec(cls, suite: str) -> SuiteSpec:
        """See `Simulator.suite_spec`: the tasks are lengths of chains, and none has a published start."""
        check_known("suite of CALVIN chains", suite, CALVIN_CHAIN_SUITES)
        return SuiteSpec(
            suite, INSTRUCTIONS, LENGTH * MAX_STEPS, 0, deviation="chains to learn from, with drawn starts"
        )

    @classmethod
    def identify(cls, config: SimulatorConfig) -> dict[str, Any]:
        """See `CalvinSimulator.identify`."""
        return CalvinSimulator.identify(_single_tasks(config))

    def reset(self, task: int, *, initial_state: int | None = None, seed: int = 0) -> Observation:
        """Draw a chain of `task` + 1 tasks and a start of its first one, by `seed`.

        Raises:
            InputError: no such length, or an initial state, of which none is published.
            SimulatorFailure: the physics broke, or no start could be drawn.
        """
        self._check_length(task)
        if initial_state is not None:
            raise InputError(f"initial state {initial_state}: chains to learn from are drawn, give a seed alone")
        random = start_random(None, seed)
        condition, self.tasks = draw_chain(task + 1, random)
        self._done = 0
        return self._inner.begin_chain(condition, self.tasks, seed, random)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        """See `Simulator.run_chunk`; a chunk ends with the task that it completes.

        Raises:
            InputError: actions of another shape or not finite, or no chain is running.
            SimulatorFailure: the physics diverged or PyBullet gave up.
        """
        result = self._inner.run_chunk(actions, record=record)
        if not result.success:
            return result
        self._done += 1
        if self._done == len(self.tasks):
            return result
        return replace(result, observation=self._inner.next_task(), success=False)

    def frames(self) -> list[np.ndarray]:
        """See `Simulator.frames`."""
        return self._inner.frames()

    def provenance(self) -> dict[str, Any]:
        """See `Simulator.provenance`."""
        return {**self._inner.provenance(), "suite": self.config.suite}

    def close(self) -> None:
        """See `Simulator.close`."""
        self._inner.close()

    def _check_length(self, task: int) -> None:
        check_start(self.spec, self.config, task, None)


def _single_tasks(config: SimulatorConfig) -> SimulatorConfig:
    """The configuration of the simulator under the chains."""
    return replace(config, suite=config.suite.removesuffix(CHAINS), tasks=())


def draw_before(task: str, random: np.random.Generator) -> tuple[Condition, str]:
    """A condition of the scene, and a task that can begin in it and that `task` can follow in a chain."""
    kind = KINDS[TASKS.index(task)]
    others = [other for other, its in zip(TASKS, KINDS, strict=True) if its != kind]
    for _ in range(DRAWS):
        before = others[random.integers(len(others))]
        condition = draw_condition(before, random)
        made = outcomes(before, condition)
        if len(made) == 1 and len(outcomes(task, made[0])) == 1:
            return condition, before
    raise RuntimeError(f"{task} follows no other task in {DRAWS} draws")


def draw_chain(length: int, random: np.random.Generator) -> tuple[Condition, tuple[str, ...]]:
    """A chain of `length` tasks, and a condition of the scene in which it can begin.

    By the evaluation's own rules (sequences.py): each task has exactly one outcome in the condition that the ones
    before it left, and no two are of one kind. First tasks are equally likely.
    """
    first = TASKS[random.integers(len(TASKS))]
    for _ in range(DRAWS):
        start = condition = draw_condition(first, random)
        chain, task = [], first
        while True:
            made = outcomes(task, condition)
            if len(made) != 1:
                break
            chain.append(task)
            condition = made[0]
            if len(chain) == length:
                return start, tuple(chain)
            used = {KINDS[TASKS.index(other)] for other in chain}
            possible = [
                other for other, kind in zip(TASKS, KINDS, strict=True)
                if kind not in used and len(outcomes(other, condition)) == 1
            ]  # fmt: skip
            if not possible:
                break
            task = possible[random.integers(len(possible))]
    raise RuntimeError(f"no chain of {length} tasks in {DRAWS} draws")
