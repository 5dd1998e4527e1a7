"""Imports on a cluster: members handed out one by one to actors that each read the source."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray

from avavla_ray.demonstrations.importers.source import Member, Skipped, Source, open_source
from avavla_ray.demonstrations.schema import Episode
from avavla_ray.demonstrations.writer import check_episode
from avavla_ray.errors import InputError
from avavla_ray.machines import for_simulators
from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.storage.sharing import here

ATTEMPTS = 3  # of one member, before it counts as lost
# What is raised for a reader that died, or whose result died with its machine.
GONE = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.OutOfMemoryError)
OPENING_S = 600.0  # after which an actor that has not opened the source yet is asked for anew


@dataclass(frozen=True)
class Reading:
    """What came of a member: its episodes, those it left out, and why the rest cannot be had (None: all was read)."""

    episodes: list[Episode] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    broken: str | None = None


def open_here(kind: str, where: str, **options: Any) -> Source:
    """As `open_source`, where `where` may be an address: brought to this machine, once for all its readers."""
    return open_source(kind, here(where), **options)


class MemberReader:
    """Reads members; keeps its source, and the simulator in it, between them."""

    def __init__(self, make_source: Callable[[], Source]) -> None:
        self._make_source = make_source
        self._source: Source | None = None

    def open(self) -> None:
        """Raises InputError: the source is not there, on this node at least."""
        self._source = self._make_source()

    def read(self, member: Member) -> Reading:
        """Raises SimulatorFailure: the simulator broke, and the member may be tried again."""
        assert self._source is not None
        reading = Reading()
        try:
            for found in self._source.read(member):
                if isinstance(found, Episode):
                    check_episode(found)
                    reading.episodes.append(found)
                else:
                    reading.skipped.append(found)
        except InputError as error:
            return Reading(reading.episodes, reading.skipped, " ".join(str(error).split()))
        except SimulatorFailure:
            raise
        except Exception as error:  # noqa: BLE001  strangers' files; what nobody foresaw costs its member only
            reason = f"not readable: {type(error).__name__}: {' '.join(str(error).split())}"
            return Reading(reading.episodes, reading.skipped, reason)
        return reading


RemoteReader: Any = ray.remote(num_cpus=1)(MemberReader)


class _Call(NamedTuple):
    """A call under way; without a member the actor is opening its source."""

    actor: int
    member: Member | None
    since: float


def read_members(
    members: Sequence[Member],
    make_source: Callable[[], Source],
    settle: Callable[[Member, Reading], None],
    *,
    num_actors: int,
    timeout_s: float = 600.0,
) -> None:
    """Read every member once and hand what came of it to `settle`, in the order in which they end.

    A reader that dies, hangs or whose simulator breaks costs its member a try; after ATTEMPTS tries the member is
    settled as lost, and the others go on.

    Args:
        make_source: run in every actor. timeout_s: a member that takes longer has hung; its actor is replaced.

    Raises:
        InputError: the source cannot be opened, or from `settle`.
    """
    if not members:
        return
    waiting, tries = deque(members), Counter[str | None]()
    calls: dict[ray.ObjectRef, _Call] = {}
    actors: dict[int, Any] = {}

    def start(actor: int) -> None:
        # Some step a simulator, and all want processors, which those machines have.
        actors[actor] = RemoteReader.options(resources=for_simulators()).remote(make_source)
        calls[actors[actor].open.remote()] = _Call(actor, None, time.monotonic())

    def replace(actor: int) -> None:
        ray.kill(actors[actor])
        start(actor)

    def give(actor: int) -> None:
        if waiting:
            member = waiting.popleft()
            calls[actors[actor].read.remote(member)] = _Call(actor, member, time.monotonic())

    def failed(member: Member, reason: str) -> None:
        tries[member.name] += 1
        again = tries[member.name] < ATTEMPTS
        print(
            f"{member.where}: {reason}; {'trying it again' if again else f'left out after {ATTEMPTS} tries'}",
            flush=True,
        )
        if again:
            waiting.append(member)
        else:
            settle(member, Reading(broken=f"lost: {reason}"))

    def end(call: _Call, reference: ray.ObjectRef) -> None:
        try:
            reading = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if call.member is None or not isinstance(error.cause, SimulatorFailure):
                raise error.cause from None
            failed(call.member, _reason(error.cause))
        except GONE as error:
            if call.member is None:
                tries[None] += 1
                if tries[None] >= ATTEMPTS * num_actors:
                    raise
            else:
                failed(call.member, _reason(error))
            replace(call.actor)
            return
        else:
            if call.member is not None:
                settle(call.member, reading)
        give(call.actor)

    def replace_late(ready: Sequence[ray.ObjectRef]) -> None:
        now = time.monotonic()
        for reference, call in list(calls.items()):
            late = now - call.since > (OPENING_S if call.member is None else timeout_s)
            if late and reference not in ready:
                del calls[reference]
                if call.member is not None:
                    failed(call.member, f"hangs for more than {timeout_s:g} s")
                replace(call.actor)

    try:
        for actor in range(max(1, min(num_actors, len(members)))):
            start(actor)
        while waiting or any(call.member is not None for call in calls.values()):
            ready, _ = ray.wait(list(calls), num_returns=1, timeout=min(5.0, timeout_s))
            replace_late(ready)
            for reference in ready:
                end(calls.pop(reference), reference)
            # A member that is to be tried again may find its actors idle.
            busy = {call.actor for call in calls.values()}
            for actor in actors.keys() - busy:
                give(actor)
    finally:
        for handle in actors.values():
            ray.kill(handle)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
