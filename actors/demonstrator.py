"""Demonstrations on a cluster: attempts handed out one by one to actors that each own a simulator and its expert."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray

from actors.watchdog import Outcome, Watchdog
from avavla_ray.demonstrations.collection import FAILED, KEPT, LOST, Attempt, Collection
from avavla_ray.demonstrations.recording import Recording, record
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.machines import for_simulators
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.experts.expert import NoExpert, after_another, make_expert
from avavla_ray.simulators.registry import make_simulator

ATTEMPTS = 3  # of one start, before it counts as lost
LEAD_IN = 1  # makes the random number that decides on a lead-in another than those of its start
WAKING_S = 600.0  # after which an actor that has no process yet is asked for anew


class Recorder(Protocol):
    """What a demonstrator keeps between attempts."""

    def record(self, task: int, seed: int) -> Recording: ...

    def provenance(self) -> dict[str, Any]: ...


class ExpertRecorder:
    """A simulator and the scripted expert for its tasks.

    Args:
        noise: on the expert's motion. speed: share of its own speed that its hand moves at.
        lead_in: share of the attempts that begin where another task has just ended.
    """

    def __init__(self, config: SimulatorConfig, noise: float, speed: float = 1.0, lead_in: float = 0.0) -> None:
        self._config, self._noise, self._speed, self._lead_in = config, noise, speed, lead_in
        self._simulator: Any = None  # experts need more of it than the Simulator interface

    def _started(self) -> Any:
        if self._simulator is None:
            self._simulator = make_simulator(self._config)
        return self._simulator

    def record(self, task: int, seed: int) -> Recording:
        """Raises SimulatorFailure when the simulator broke; the next call starts a fresh one."""
        simulator, begin = self._started(), None
        if np.random.default_rng([seed, LEAD_IN]).random() < self._lead_in:
            begin = after_another(simulator, self._noise, self._speed)
        try:
            return record(
                simulator,
                lambda chosen: make_expert(simulator, seed=chosen, noise=self._noise, speed=self._speed),
                task=task, seed=seed, begin=begin,
            )  # fmt: skip
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


RemoteDemonstrator: Any = ray.remote(num_cpus=1)(Demonstrator)


@dataclass
class _Assignment:
    actor: int
    attempt: Attempt
    since: float


@dataclass
class _Waking:
    actor: int
    since: float


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
    all_tasks: bool = False,
) -> None:
    """Make attempts until every task has its demonstrations; each is written and entered as it ends.

    A simulator that breaks, an actor that dies and an attempt that hangs cost that attempt only: the same start is
    tried again, ATTEMPTS times in all, then it counts as lost and another start takes its place. A task that loses one
    start after the other is quarantined: it keeps what it has, and the others go on. So does a task without an expert.
    Starts are counted, not deaths: a node that goes down takes many actors with it, and no task is to blame.

    The expert needs more of the simulator than its interface shows, so that both live in the actor's process, which is
    what is killed and replaced.

    Args:
        make_recorder: run in every actor. finished: told of every attempt's outcome.
        describe: turns the simulator's provenance into what the collection keeps.
        timeout_s: an attempt that takes longer has hung; its actor is replaced.
        all_tasks: a task without an expert is not left out but ends the collection.

    Raises:
        NoExpert: no task has an expert, or one has none and `all_tasks` are wanted.
        InputError: from the simulator's own checks, or a task is mostly not solved.
        NoTaskLeft: every task that has an expert has been quarantined.
        SimulatorFailure: the simulator does not even say what it is.
    """
    needed = sum(collection.missing(task) for task in collection.tasks)
    if not needed:
        return
    remote = RemoteDemonstrator.options(resources=for_simulators())
    actors = [remote.remote(make_recorder) for _ in range(max(1, min(num_actors, needed)))]
    loaded: dict[int, int] = {}
    tries: dict[Attempt, int] = {}
    watchdog = Watchdog(collection.tasks)
    idle: set[int] = set()
    running: dict[ray.ObjectRef, _Assignment] = {}
    waking: dict[ray.ObjectRef, _Waking] = {}

    def replace(actor: int) -> None:
        ray.kill(actors[actor])
        actors[actor] = remote.remote(make_recorder)
        loaded.pop(actor, None)

    def wake(actor: int) -> None:
        waking[actors[actor].awake.remote()] = _Waking(actor, time.monotonic())

    def start(actor: int, attempt: Attempt) -> None:
        idle.discard(actor)
        loaded[actor] = attempt.task
        reference = actors[actor].attempt.remote(attempt.task, attempt.seed(seed))
        running[reference] = _Assignment(actor, attempt, time.monotonic())

    def hand_out() -> None:
        for actor in sorted(idle):
            others = [task for other, task in loaded.items() if other != actor]
            attempt = collection.take(loaded.get(actor), others)
            if attempt is not None:
                start(actor, attempt)

    def settle(attempt: Attempt, outcome: str) -> None:
        collection.settle(attempt, outcome)
        finished(attempt, outcome)

    def broke(assignment: _Assignment, error: Exception) -> None:
        actor, attempt = assignment.actor, assignment.attempt
        if isinstance(error, ray.exceptions.RayError):
            idle.discard(actor)
            replace(actor)
            wake(actor)
        tries[attempt] = tries.get(attempt, 0) + 1
        reason = _reason(error)
        if tries[attempt] < ATTEMPTS:
            print(f"{_title(attempt)}: {reason}; trying it again", flush=True)
            collection.withdraw(attempt)
            return
        print(f"{_title(attempt)}: {reason}; given up after {ATTEMPTS} tries", flush=True)
        if watchdog.saw(Outcome(attempt.task, getattr(error, "kind", "crash"), reason)):
            collection.quarantined = watchdog.quarantined
            print(f"{watchdog.quarantined[attempt.task]}; the others go on", flush=True)
        settle(attempt, LOST)

    def end(reference: ray.ObjectRef) -> None:
        assignment = running.pop(reference)
        attempt = assignment.attempt
        idle.add(assignment.actor)
        try:
            recording = _unwrapped(reference)
        except (SimulatorFailure, ray.exceptions.RayError) as error:  # a recording may be lost with its machine, too
            broke(assignment, error)
            return
        except NoExpert as error:
            if all_tasks:
                raise NoExpert(f"task {attempt.task}: {error}; leave it out with --tasks") from error
            if attempt.task not in collection.without_expert:
                print(f"task {attempt.task} is left out: {error}", flush=True)
            collection.leave_out(attempt, str(error))
            return
        watchdog.saw(Outcome(attempt.task))
        if recording.success:
            writer.write(_episode(recording, suite, attempt, seed))
        settle(attempt, KEPT if recording.success else FAILED)

    def look_for_hangs(ready: list[ray.ObjectRef]) -> None:
        now = time.monotonic()
        for reference, assignment in running.items():
            if reference not in ready and now - assignment.since > timeout_s:
                print(f"{_title(assignment.attempt)} hangs: its simulator is started anew", flush=True)
                assignment.since = now
                ray.kill(actors[assignment.actor])  # the attempt then ends as any whose actor died
        for reference, late in list(waking.items()):
            if reference not in ready and now - late.since > WAKING_S:
                print(f"no process for actor {late.actor} within {WAKING_S:g} s: asking for another", flush=True)
                del waking[reference]
                replace(late.actor)
                wake(late.actor)

    try:
        if collection.provenance is None:
            collection.provenance = describe(_provenance(actors, replace))
        for actor in range(len(actors)):
            wake(actor)
        while running or (waking and not collection.done):
            ready, _ = ray.wait([*running, *waking], num_returns=1, timeout=5.0)
            look_for_hangs(ready)
            for reference in ready:
                if reference in waking:
                    # An actor that died while it started is handed an attempt all the same: its tries are counted.
                    idle.add(waking.pop(reference).actor)
                else:
                    end(reference)
            hand_out()
        _check_left(collection, watchdog)
    finally:
        for actor in actors:
            ray.kill(actor)


def _provenance(actors: list[Any], replace: Callable[[int], None]) -> dict[str, Any]:
    """What the first actor's simulator says of itself; like an attempt, it is asked for ATTEMPTS times."""
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            return _unwrapped(actors[0].provenance.remote(), WAKING_S)
        except (SimulatorFailure, ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            reason = _reason(error)
            print(f"starting the simulator: {reason}", flush=True)
            replace(0)
    raise SimulatorFailure(f"the simulator could not be started in {ATTEMPTS} tries; the last time {reason}", "crash")


def _check_left(collection: Collection, watchdog: Watchdog) -> None:
    """Raise unless some task has an expert and is not quarantined; see `collect`."""
    rest = [task for task in collection.tasks if task not in collection.without_expert]
    if not rest:
        last = list(collection.without_expert.values())[-1]
        raise NoExpert(f"none of the {len(collection.tasks)} tasks can be demonstrated; the last: {last}")
    left = Watchdog(rest)
    left.adopt(watchdog.quarantined)
    left.playable()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _title(attempt: Attempt) -> str:
    return f"task {attempt.task}, attempt {attempt.number}"


def _episode(recording: Recording, suite: str, attempt: Attempt, seed: int) -> Episode:
    info = EpisodeInfo(
        attempt.name(suite), suite, attempt.task, attempt.number, attempt.seed(seed),
        len(recording.actions), recording.dropped, recording.instruction,
    )  # fmt: skip
    return Episode(info, recording.images, recording.proprio, recording.actions)


def _unwrapped(reference: ray.ObjectRef, timeout_s: float | None = None) -> Any:
    """`ray.get`, with our own exceptions as they were raised."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
