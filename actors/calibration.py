"""Collecting the decisions that exit calibration learns from: episodes handed out to actors with a simulator each."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch

from actors.watchdog import Outcome, Watchdog
from avavla_ray.errors import InputError
from avavla_ray.machines import for_simulators
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.simulators.registry import make_simulator
from avavla_ray.training.gate_decisions import PlayedEpisode, Start, play_for_states

ATTEMPTS = 3  # at an episode whose simulator or actor dies
SimulatorFactory = Callable[[SimulatorConfig], Simulator]


class Collector:
    """Plays episodes and gives the latent states of their decisions; keeps its simulator between them."""

    def __init__(
        self, agent: Agent, config: SimulatorConfig, factory: SimulatorFactory, seed: int, exit_threshold: float | None
    ) -> None:
        torch.set_num_threads(1)
        self._agent, self._seed, self._exit_threshold = agent, seed, exit_threshold
        self._make = functools.partial(factory, config)
        self._simulator: Simulator | None = None

    def play(self, start: Start) -> tuple[PlayedEpisode, dict[str, Any]]:
        """An episode, and what its simulator says of itself.

        Raises:
            SimulatorFailure: the simulator broke; the next episode has another one.
        """
        if self._simulator is None:
            self._simulator = self._make()
        simulator = self._simulator
        try:
            played = play_for_states(
                simulator, self._agent, start, seed=self._seed, exit_threshold=self._exit_threshold
            )
            return played, simulator.provenance()
        except SimulatorFailure:
            if not isinstance(simulator, IsolatedSimulator):  # that one starts another process by itself
                self._simulator = None
                simulator.close()
            raise


RemoteCollector: Any = ray.remote(num_cpus=1)(Collector)


def collect(
    agent: Agent,
    config: SimulatorConfig,
    starts: Sequence[Start],
    num_actors: int,
    finished: Callable[[PlayedEpisode, dict[str, Any]], None],
    *,
    seed: int,
    exit_threshold: float | None,
    factory: SimulatorFactory = make_simulator,
    isolate: bool = True,
) -> dict[Start, str]:
    """Play every start, `num_actors` at a time, and call `finished` for each as it ends.

    Which actor plays what changes nothing in an episode. One whose simulator or actor dies is played again, at most
    ATTEMPTS times in all; a task that kills one simulator after the other is quarantined.

    Args:
        finished: takes the episode and its simulator's provenance.
        seed, exit_threshold: see `play_for_states`.
        isolate: simulators in processes of their own, which die instead of the actor.

    Returns:
        Why, for each start that could not be played to its end.

    Raises:
        InputError: from the simulator's own checks.
    """
    if not starts:
        return {}
    if isolate:
        factory = functools.partial(IsolatedSimulator, factory)
    handle = ray.put(agent)
    waiting, lost = list(starts), dict[Start, str]()
    attempts, watchdog = Counter[Start](), Watchdog(sorted({start.task for start in starts}))

    def make() -> Any:
        collector = RemoteCollector.options(resources=for_simulators())
        return collector.remote(handle, config, factory, seed, exit_threshold)

    actors = [make() for _ in range(max(1, min(num_actors, len(waiting))))]
    loaded: dict[int, int] = {}  # the task of each actor: changing it rebuilds the simulator
    running: dict[ray.ObjectRef, tuple[int, Start]] = {}

    def hand_out(index: int) -> None:
        if not waiting:
            return
        others = {task for other, task in loaded.items() if other != index}
        same = (start for start in waiting if start.task == loaded.get(index))
        fresh = (start for start in waiting if start.task not in others)
        start = next(same, None) or next(fresh, None) or waiting[0]
        waiting.remove(start)
        loaded[index] = start.task
        running[actors[index].play.remote(start)] = (index, start)

    def abort(start: Start, kind: str, reason: str) -> None:
        attempts[start] += 1
        title = f"task {start.task}, episode {start.number}: {kind}: {reason}"
        if watchdog.saw(Outcome(start.task, kind, reason, aborted=True)):
            print(f"{watchdog.quarantined[start.task]}; the others go on", flush=True)
        if start.task in watchdog.quarantined:
            gone = [start, *(other for other in waiting if other.task == start.task)]
            waiting[:] = [other for other in waiting if other.task != start.task]
            lost.update(dict.fromkeys(gone, watchdog.quarantined[start.task]))
        elif attempts[start] < ATTEMPTS:
            print(f"{title}; playing it again", flush=True)
            waiting.append(start)
        else:
            print(f"{title}; left out after {ATTEMPTS} attempts", flush=True)
            lost[start] = f"{kind}: {reason}"

    try:
        for index in range(len(actors)):
            hand_out(index)
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            index, start = running.pop(reference)
            try:
                played, described = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, SimulatorFailure):
                    raise error.cause from (None if isinstance(error.cause, InputError) else error)
                abort(start, error.cause.kind, str(error.cause))
            except ray.exceptions.RayError as error:  # it died, or what it had played did with its machine
                ray.kill(actors[index])
                actors[index] = make()
                loaded.pop(index)
                abort(start, "crash", f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                watchdog.saw(Outcome(start.task))
                finished(played, described)
            hand_out(index)
            for idle in set(range(len(actors))) - {busy for busy, _ in running.values()}:
                hand_out(idle)  # an episode that came back when there was nothing left for it
    finally:
        for actor in actors:
            ray.kill(actor)
    return lost
