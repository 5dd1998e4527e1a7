"""Evaluation on a cluster: episodes handed out one by one to actors that each own a simulator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
import torch

from avavla_ray.evaluation.episode import EpisodeRecord, ExitSetting, Film
from avavla_ray.evaluation.protocol import play_episode
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.registry import make_simulator

ATTEMPTS = 3
SimulatorFactory = Callable[[SimulatorConfig], Simulator]


@dataclass(frozen=True)
class Episode:
    """One episode to play; with `film` its pictures come back too."""

    setting: ExitSetting
    task: int
    initial_state: int
    film: bool = False


class Evaluator:
    """Plays episodes; keeps its simulator between them."""

    def __init__(self, agent: Agent, config: SimulatorConfig, factory: SimulatorFactory) -> None:
        torch.set_num_threads(1)
        self._agent = agent
        self._make = functools.partial(factory, config)
        self._simulator: Simulator | None = None

    def _ready(self) -> Simulator:
        if self._simulator is None:
            self._simulator = self._make()
        return self._simulator

    def play(self, episode: Episode) -> tuple[EpisodeRecord, Film | None]:
        simulator = self._ready()
        film = Film() if episode.film else None
        try:
            record = play_episode(
                simulator, self._agent, episode.setting,
                task=episode.task, initial_state=episode.initial_state, film=film,
            )  # fmt: skip
        except SimulatorFailure:
            self._simulator = None
            simulator.close()
            raise
        return record, film

    def provenance(self) -> dict[str, object]:
        """What the simulator says of itself."""
        return self._ready().provenance()


RemoteEvaluator: Any = ray.remote(num_cpus=1)(Evaluator)


def evaluate(
    agent: Agent,
    config: SimulatorConfig,
    episodes: Iterable[Episode],
    num_actors: int,
    finished: Callable[[Episode, EpisodeRecord, Film | None], None],
    factory: SimulatorFactory = make_simulator,
) -> dict[str, object]:
    """Play every episode, `num_actors` at a time, and call `finished` for each as it ends.

    An episode whose simulator or actor dies is played again on a fresh one, at most ATTEMPTS times in all; then it is
    handed to `finished` with its error. An actor prefers episodes of the task it has loaded.

    Returns:
        The simulator's provenance.

    Raises:
        InputError: from the simulator's own checks.
    """
    waiting = list(episodes)
    handle = ray.put(agent)
    actors = [RemoteEvaluator.remote(handle, config, factory) for _ in range(max(1, min(num_actors, len(waiting))))]
    loaded: dict[int, int] = {}
    attempts: dict[Episode, int] = {}
    running: dict[ray.ObjectRef, tuple[int, Episode]] = {}

    def hand_out(index: int) -> None:
        if not waiting:
            return
        others = {task for other, task in loaded.items() if other != index}
        same = (e for e in waiting if e.task == loaded.get(index))
        fresh = (e for e in waiting if e.task not in others)
        episode = next(same, None) or next(fresh, None) or waiting[0]
        waiting.remove(episode)
        loaded[index] = episode.task
        running[actors[index].play.remote(episode)] = (index, episode)

    try:
        described = _unwrapped(actors[0].provenance.remote())
        for index in range(len(actors)):
            hand_out(index)
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            index, episode = running.pop(reference)
            try:
                record, film = _unwrapped(reference)
                finished(episode, record, film)
            except (SimulatorFailure, ray.exceptions.RayActorError) as error:
                if isinstance(error, ray.exceptions.RayActorError):
                    actors[index] = RemoteEvaluator.remote(handle, config, factory)
                    loaded.pop(index)
                attempts[episode] = attempts.get(episode, 0) + 1
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                if attempts[episode] < ATTEMPTS:
                    print(
                        f"task {episode.task}, state {episode.initial_state}: {reason}; playing it again",
                        flush=True,
                    )
                    waiting.append(episode)
                else:
                    lost = EpisodeRecord(
                        episode.setting.label,
                        episode.task,
                        episode.initial_state,
                        success=False,
                        steps=0,
                        error=reason,
                    )
                    finished(episode, lost, None)
            hand_out(index)
    finally:
        for actor in actors:
            ray.kill(actor)
    return described


def _unwrapped(reference: ray.ObjectRef) -> Any:
    """`ray.get`, with our own exceptions as they were raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
