"""Evaluation on a cluster: episodes handed out one by one to actors that each own a simulator."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
import torch

from actors.watchdog import Outcome, Watchdog
from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.protocol import play_episode
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
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
            if not isinstance(simulator, IsolatedSimulator):  # that one starts another process by itself
                self._simulator = None
                simulator.close()
            raise
        return record, film

    def provenance(self) -> dict[str, object]:
        """What the simulator says of itself."""
        return {"isolated": False, **self._ready().provenance()}


RemoteEvaluator: Any = ray.remote(num_cpus=1)(Evaluator)


def evaluate(
    agent: Agent,
    config: SimulatorConfig,
    episodes: Iterable[Episode],
    num_actors: int,
    finished: Callable[[Episode, EpisodeRecord, Film | None], None],
    factory: SimulatorFactory = make_simulator,
    isolate: bool = True,
) -> dict[str, object]:
    """Play every episode, `num_actors` at a time, and call `finished` for each as it ends.

    An episode whose simulator or actor dies is aborted: neither failed nor a success. It is played again, at most
    ATTEMPTS times in all; then it is handed to `finished` with its error. A task that kills one simulator after the
    other is quarantined: what is left of it is handed over so without being played. An actor prefers episodes of the
    task it has loaded.

    Args:
        isolate: simulators in processes of their own, which die instead of the actor.

    Returns:
        The simulator's provenance.

    Raises:
        InputError: from the simulator's own checks.
        SimulatorFailure, RayActorError: no simulator could be constructed in ATTEMPTS attempts.
    """
    queue = _Queue(episodes, finished)
    if isolate:
        factory = functools.partial(IsolatedSimulator, factory)
    handle = ray.put(agent)
    actors = [
        RemoteEvaluator.remote(handle, config, factory) for _ in range(max(1, min(num_actors, len(queue.waiting))))
    ]
    running: dict[ray.ObjectRef, tuple[int, Episode]] = {}

    def hand_out(index: int) -> None:
        episode = queue.take(index)
        if episode is not None:
            running[actors[index].play.remote(episode)] = (index, episode)

    def describe() -> dict[str, object]:
        """What the first simulator says of itself; that may die as any other."""
        for _ in range(ATTEMPTS - 1):
            try:
                return _unwrapped(actors[0].provenance.remote())
            except (SimulatorFailure, ray.exceptions.RayActorError) as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"no simulator to play in: {reason}; starting another", flush=True)
                ray.kill(actors[0])
                actors[0] = RemoteEvaluator.remote(handle, config, factory)
        return _unwrapped(actors[0].provenance.remote())

    try:
        described = describe()
        for index in range(len(actors)):
            hand_out(index)
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            index, episode = running.pop(reference)
            try:
                queue.settle(episode, *_unwrapped(reference))
            except SimulatorFailure as failure:
                queue.abort(episode, failure.kind, str(failure))
            except ray.exceptions.RayActorError as error:
                actors[index] = RemoteEvaluator.remote(handle, config, factory)
                queue.loaded.pop(index)
                queue.abort(episode, "crash", f"{type(error).__name__}: {error}".splitlines()[0])
            hand_out(index)
    finally:
        for actor in actors:
            ray.kill(actor)
    return described


class _Queue:
    """Episodes to play, and what becomes of those that their simulator ends."""

    def __init__(
        self, episodes: Iterable[Episode], finished: Callable[[Episode, EpisodeRecord, Film | None], None]
    ) -> None:
        self.waiting, self._finished = list(episodes), finished
        self.loaded: dict[int, int] = {}  # the task of each actor
        self._attempts: Counter[Episode] = Counter()
        self._watchdog = Watchdog(sorted({episode.task for episode in self.waiting}))

    def take(self, actor: int) -> Episode | None:
        """The next episode for this actor."""
        if not self.waiting:
            return None
        others = {task for other, task in self.loaded.items() if other != actor}
        same = (e for e in self.waiting if e.task == self.loaded.get(actor))
        fresh = (e for e in self.waiting if e.task not in others)
        episode = next(same, None) or next(fresh, None) or self.waiting[0]
        self.waiting.remove(episode)
        self.loaded[actor] = episode.task
        return episode

    def settle(self, episode: Episode, record: EpisodeRecord, film: Film | None) -> None:
        self._watchdog.saw(Outcome(episode.task))
        self._finished(episode, record, film)

    def abort(self, episode: Episode, kind: str, reason: str) -> None:
        """Play it again, or give it up; so with all others of its task once that is quarantined."""
        self._attempts[episode] += 1
        title = f"task {episode.task}, state {episode.initial_state}: {kind}: {reason}"
        if self._watchdog.saw(Outcome(episode.task, kind, reason, aborted=True)):
            print(f"{self._watchdog.quarantined[episode.task]}; the others go on", flush=True)
        if episode.task in self._watchdog.quarantined:
            others = [other for other in self.waiting if other.task == episode.task]
            self.waiting = [other for other in self.waiting if other.task != episode.task]
            for lost in (episode, *others):
                self._give_up(lost, self._watchdog.quarantined[episode.task], quarantined=True)
        elif self._attempts[episode] < ATTEMPTS:
            print(f"{title}; playing it again", flush=True)
            self.waiting.append(episode)
        else:
            print(f"{title}; given up after {ATTEMPTS} attempts", flush=True)
            self._give_up(episode, f"{kind}: {reason}")

    def _give_up(self, episode: Episode, error: str, quarantined: bool = False) -> None:
        lost = EpisodeRecord(
            episode.setting.label, episode.task, episode.initial_state,
            success=False, steps=0, error=error, quarantined=quarantined,
        )  # fmt: skip
        self._finished(episode, lost, None)


def _unwrapped(reference: ray.ObjectRef) -> Any:
    """`ray.get`, with exceptions as they were raised; where from stays visible unless it is the user's input."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from (None if isinstance(error.cause, InputError) else error)
