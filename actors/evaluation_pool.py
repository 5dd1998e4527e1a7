"""Simulators that play what an evaluation asks for: loaded once, kept for whatever is asked next."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.evaluation_actors import RemoteEvaluator, ServedAgent, SimulatorFactory, start_servers
from actors.evaluation_queue import ATTEMPTS, EvaluationQueue, Finished, Play
from actors.placement import PolicyServerLost
from actors.watchdog import Watchdog
from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.protocol import play_episode
from avavla_ray.machines import for_simulators
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.simulators.registry import make_simulator


@dataclass(frozen=True)
class Episode:
    """One episode from a fixed initial state; with `film` its pictures come back too."""

    setting: ExitSetting
    task: int
    initial_state: int
    film: bool = False

    def play(self, simulator: Simulator, agent: Agent, attempt: int) -> tuple[EpisodeRecord, Film | None]:
        """See `Play.play`."""
        film = Film() if self.film else None
        record = play_episode(
            simulator, agent, self.setting, task=self.task, initial_state=self.initial_state, film=film
        )  # fmt: skip
        return record, film

    def lost(self, error: str, attempts: int, quarantined: bool) -> EpisodeRecord:
        """See `Play.lost`."""
        return EpisodeRecord(
            self.setting.label, self.task, self.initial_state,
            success=False, steps=0, error=error, quarantined=quarantined,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"task {self.task}, state {self.initial_state}"


class EvaluationPool:
    """Actors that each own a simulator of one suite, and decide with one checkpoint or have servers decide for them.

    Who plays what, how many they are and who of them dies changes no record of an episode that was played but its
    milliseconds: it begins in a state of its own, draws nothing at random and is decided for alone, by a copy of the
    policy in the actor's process or by a server. (A GPU rounds other than a CPU: between these two, episodes differ.)
    Which ones are given up because their simulators died may depend on how many there are.

    Actors are started when there is something for them to play, and keep their simulators until `close`.

    Args:
        agent: decides; None where what is played asks nobody.
        config: of the simulators. factory: makes them, in the actors. isolate: in processes of their own, which die
            instead of the actor.
        servers: so many decide for all; 0: each actor has a copy of the policy. server_gpus: of each server; 0 decides
            on the CPU.
    """

    def __init__(
        self,
        agent: Agent | None,
        config: SimulatorConfig,
        num_actors: int,
        *,
        factory: SimulatorFactory = make_simulator,
        isolate: bool = True,
        servers: int = 0,
        server_gpus: float = 0,
    ) -> None:
        if servers and agent is None:
            raise InputError("policy servers without a policy: give a checkpoint, or leave out the servers")
        self._config, self._num_actors = config, max(1, num_actors)
        self._factory: Any = functools.partial(IsolatedSimulator, factory) if isolate else factory
        self._agent = None if agent is None else ray.put(agent)
        self._served = () if agent is None else ([self._agent], agent.config, agent.initial_belief())
        self._servers = start_servers(servers, server_gpus)
        self._actors: list[Any] = []
        self._ready: list[ray.ObjectRef] = []  # what the simulator of each says of itself, once it is there
        self._nodes: list[ray.ObjectRef] = []  # where each is
        self._loaded: dict[int, int] = {}
        self._watchdog = Watchdog((), witnesses=min(2, self._num_actors))
        self._described: dict[str, object] | None = None

    def play(self, episodes: Iterable[Play], finished: Finished) -> None:
        """Play them all, as many at a time as there are actors, and call `finished` for each as it ends.

        One whose simulator or actor dies is aborted: neither failed nor a success. It is played again, at most ATTEMPTS
        times in all, by another actor where there is one; then it is handed to `finished` with its error. A task that
        kills one simulator after the other, of two actors if there are two, and on two machines if they are on several,
        is quarantined: what is left of it, in later calls too, is handed over so without being played. What goes down
        with its actor counts there only at its last attempt. An actor prefers what is of the task that
        it has loaded.

        Args:
            finished: takes each with its record, and its pictures if they were wanted. Once it returns True nothing
                more is begun; what is being played is awaited and handed over.

        Raises:
            InputError: from the simulator's own checks.
            SimulatorFailure, RayError: no simulator could be constructed in ATTEMPTS attempts.
            PolicyServerLost: no server answers.
        """
        queue = EvaluationQueue(episodes, self._loaded, self._watchdog, finished)
        if not queue:
            return
        self._start(len(queue))
        queue.actors = len(self._actors)
        self._describe()
        running: dict[ray.ObjectRef, tuple[int, Play]] = {}

        def hand_out() -> None:
            """To all that have nothing to play: what died on one may be for another that had found nothing left."""
            busy = {actor for actor, _ in running.values()}
            for actor in range(len(self._actors)):
                taken = None if actor in busy else queue.take(actor)
                if taken is not None:
                    running[self._actors[actor].play.remote(*taken)] = (actor, taken[0])

        try:
            hand_out()
            while running:
                (reference,), _ = ray.wait(list(running), num_returns=1)
                actor, episode = running.pop(reference)
                try:
                    record, film = _unwrapped(reference)
                except PolicyServerLost:  # no task's fault
                    raise
                except SimulatorFailure as failure:
                    queue.abort(episode, failure.kind, str(failure), actor, self._machine(actor), failure.shared)
                except RayError as error:  # it died, or what it had played did with its machine
                    machine = self._machine(actor)
                    self._restart(actor)
                    queue.abort(episode, "crash", _reason(error), actor, machine, shared=True)
                else:
                    queue.settle(episode, record, film, actor, self._machine(actor))
                hand_out()
        finally:
            for actor, _ in running.values():  # interrupted: nobody waits for what they play
                self._restart(actor)

    @property
    def provenance(self) -> dict[str, object]:
        """What a simulator says of itself, and on what is decided. Starts one if none runs yet."""
        self._start(1)
        return self._describe()

    def close(self) -> None:
        """End all actors."""
        for actor in [*self._actors, *self._servers]:
            ray.kill(actor)
        self._actors, self._servers, self._ready, self._nodes = [], [], [], []

    def __enter__(self) -> EvaluationPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, plays: int) -> None:
        """As many actors as can have something to play."""
        while len(self._actors) < min(self._num_actors, plays):
            self._actors.append(self._make_actor(len(self._actors)))
            self._nodes.append(self._actors[-1].node.remote())
            self._ready.append(self._actors[-1].provenance.remote())  # all of them make theirs at the same time

    def _make_actor(self, number: int) -> Any:
        agent: Any = self._agent
        if self._servers:
            agent = ServedAgent(self._servers[number % len(self._servers)], *self._served)
        evaluator = RemoteEvaluator.options(resources=for_simulators())
        return evaluator.remote(agent, self._config, self._factory)

    def _restart(self, number: int) -> None:
        ray.kill(self._actors[number])
        self._actors[number] = self._make_actor(number)
        self._nodes[number] = self._actors[number].node.remote()
        self._ready[number] = self._actors[number].provenance.remote()
        self._loaded.pop(number, None)
        self._watchdog.among(set(range(len(self._actors))) - {number})

    def _machine(self, number: int) -> str:
        """Empty for an actor that has never said where it is."""
        said, _ = ray.wait([self._nodes[number]], timeout=0)
        try:
            return ray.get(said[0]) if said else ""
        except RayError:
            return ""

    def _describe(self) -> dict[str, object]:
        """What the first simulator says of itself; that may die as any other."""
        attempt = 1
        while self._described is None:
            try:
                described = _unwrapped(self._ready[0])
            except (SimulatorFailure, RayError) as error:
                if attempt == ATTEMPTS:
                    raise
                print(f"no simulator to play in: {_reason(error)}; starting another", flush=True)
                self._restart(0)
                attempt += 1
            else:
                device = _unwrapped(self._servers[0].device.remote([self._agent])) if self._servers else "cpu"
                self._described = {**described, "decided_on": device} if self._agent is not None else described
        return self._described


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _unwrapped(reference: ray.ObjectRef) -> Any:
    """`ray.get`, with exceptions as they were raised; where from stays visible unless it is the user's input."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from (None if isinstance(error.cause, InputError) else error)
