"""Demonstrations on a cluster: attempts handed out one by one to actors that each own a simulator and its expert."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from actors.watchdog import Outcome, Watchdog
from avavla_ray.demonstrations.collection import FAILED, KEPT, LOST, Attempt, Collection
from avavla_ray.demonstrations.recording import Recording, record
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.registry import make_simulator

ATTEMPTS = 3  # of one start, before it counts as lost


class Recorder(Protocol):
    """What a demonstrator keeps between attempts."""

    def record(self, task: int, seed: int) -> Recording: ...

    def provenance(self) -> dict[str, Any]: ...


class ExpertRecorder:
    """A simulator and the scripted expert for its tasks."""

    def __init__(self, config: SimulatorConfig, noise: float) -> None:
        self._config, self._noise = config, noise
        self._simulator: Any = None  # experts need more of it than the Simulator interface

    def _started(self) -> Any:
        if self._simulator is None:
            self._simulator = make_simulator(self._config)
        return self._simulator

    def record(self, task: int, seed: int) -> Recording:
        """Raises SimulatorFailure when the simulator broke; the next call starts a fresh one."""
        from avavla_ray.simulators.experts.expert import make_expert

        simulator = self._started()
        try:
            return record(
                simulator, lambda chosen: make_expert(simulator, seed=chosen, noise=self._noise), task=task, seed=seed
            )
        except SimulatorFailure:
            simulator.close()
            self._simulator = None
            raise

    def provenance(self) -> dict[str, Any]:
        return self._started().provenance()


class Demonstrator:
    """Makes attempts; keeps its recorder between them."""

    def __init__(self, make_recorder: Callable[[], Recorder]) -> None:
        self._recorder = make_recorder()

    def attempt(self, task: int, seed: int) -> Recording:
        return self._recorder.record(task, seed)

    def provenance(self) -> dict[str, Any]:
        return self._recorder.provenance()

    def awake(self) -> None:
        """Nothing to do: that this returns says that the process is there."""


RemoteDemonstrator: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)(Demonstrator)


@dataclass
class _Assignment:
    actor: int
    attempt: Attempt
    since: float
    waking: bool = False  # its actor is on its way back; the attempt is made when it is there


def collect(
    collection: Collection,
    writer: DatasetWriter,
    make_recorder: Callable[[], Recorder],
    *,
    suite: str,
    seed: int,
    num_actors: int,
    finished: Callable[[Attempt, str], None],
    describe: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    timeout_s: float = 600.0,
) -> None:
    """Make attempts until every task has its demonstrations; each is written and entered as it ends.

    A simulator that breaks, an actor that dies and an attempt that hangs cost that attempt only: the same start is
    tried again, ATTEMPTS times in all, then it counts as lost and another start takes its place. A task that loses one
    start after the other is quarantined: it keeps what it has, and the others go on.

    The expert needs more of the simulator than its interface shows, so that both live in the actor's process, which is
    what is killed and comes back.

    Args:
        make_recorder: run in every actor. finished: told of every attempt's outcome.
        describe: turns the simulator's provenance into what the collection keeps.
        timeout_s: an attempt that takes longer has hung; its actor is killed and comes back by itself.

    Raises:
        InputError: from the simulator's own checks, or a task is mostly not solved.
        NoTaskLeft: every task has been quarantined.
    """
    needed = sum(collection.missing(task) for task in collection.tasks)
    if not needed:
        return
    actors = [RemoteDemonstrator.remote(make_recorder) for _ in range(max(1, min(num_actors, needed)))]
    loaded: dict[int, int] = {}
    tries: dict[Attempt, int] = {}
    watchdog = Watchdog(collection.tasks)
    running: dict[ray.ObjectRef, _Assignment] = {}
    away: set[int] = set()  # actors that died and are on their way back

    def start(actor: int, attempt: Attempt) -> None:
        loaded[actor] = attempt.task
        if actor in away:
            # Ray refuses at once what is asked of an actor that is being restarted, unless it may ask again.
            reference = actors[actor].awake.options(max_task_retries=-1).remote()
        else:
            reference = actors[actor].attempt.remote(attempt.task, attempt.seed(seed))
        running[reference] = _Assignment(actor, attempt, time.monotonic(), waking=actor in away)

    def hand_out() -> None:
        for actor in sorted(set(range(len(actors))) - {assignment.actor for assignment in running.values()}):
            others = [task for other, task in loaded.items() if other != actor]
            attempt = collection.take(loaded.get(actor), others)
            if attempt is not None:
                start(actor, attempt)

    def settle(attempt: Attempt, outcome: str) -> None:
        collection.settle(attempt, outcome)
        finished(attempt, outcome)

    try:
        if collection.provenance is None:
            collection.provenance = describe(_unwrapped(actors[0].provenance.remote()))
        hand_out()
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=5.0)
            now = time.monotonic()
            for assignment in running.values():
                if not ready and not assignment.waking and now - assignment.since > timeout_s:
                    print(f"{_title(assignment.attempt)} hangs: its simulator is started anew", flush=True)
                    assignment.since = now
                    ray.kill(actors[assignment.actor], no_restart=False)
            for reference in ready:
                assignment = running.pop(reference)
                attempt = assignment.attempt
                if assignment.waking:
                    away.discard(assignment.actor)
                    start(assignment.actor, attempt)
                    continue
                try:
                    recording = _unwrapped(reference)
                except (SimulatorFailure, ray.exceptions.RayActorError) as error:
                    if isinstance(error, ray.exceptions.RayActorError):
                        away.add(assignment.actor)
                    tries[attempt] = tries.get(attempt, 0) + 1
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    if tries[attempt] < ATTEMPTS:
                        print(f"{_title(attempt)}: {reason}; trying it again", flush=True)
                        start(assignment.actor, attempt)
                    else:
                        print(f"{_title(attempt)}: {reason}; given up after {ATTEMPTS} tries", flush=True)
                        if watchdog.saw(Outcome(attempt.task, getattr(error, "kind", "crash"), reason)):
                            collection.quarantined = watchdog.quarantined
                            print(f"{watchdog.quarantined[attempt.task]}; the others go on", flush=True)
                        settle(attempt, LOST)
                    continue
                watchdog.saw(Outcome(attempt.task))
                if recording.success:
                    writer.write(_episode(recording, suite, attempt, seed))
                settle(attempt, KEPT if recording.success else FAILED)
            hand_out()
        watchdog.playable()
    finally:
        for actor in actors:
            ray.kill(actor)


def _title(attempt: Attempt) -> str:
    return f"task {attempt.task}, attempt {attempt.number}"


def _episode(recording: Recording, suite: str, attempt: Attempt, seed: int) -> Episode:
    info = EpisodeInfo(
        attempt.name(suite), suite, attempt.task, attempt.number, attempt.seed(seed),
        len(recording.actions), recording.dropped, recording.instruction,
    )  # fmt: skip
    return Episode(info, recording.images, recording.proprio, recording.actions)


def _unwrapped(reference: ray.ObjectRef) -> Any:
    """`ray.get`, with our own exceptions as they were raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
