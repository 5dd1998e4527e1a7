"""Strikes: what is killed or stopped, and when that part does its work again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos_run.processes import Family
from benchmarks.chaos_run.stage import Driver, Nodes, Store

OUTAGE_S = 3.0  # that the MLflow server is away, and that a node is not replaced for
KINDS = (
    "kill simulator", "kill runner", "kill learner", "kill server", "kill mlflow", "kill node", "kill driver",
    "stop runner", "stop learner", "stop server", "stop mlflow", "stop driver", "stop simulator",
)  # fmt: skip


@dataclass
class Strike:
    """One of them.

    Attributes:
        time: seconds since 1970. doomed: processes of simulators whose last words nobody may have heard.
        known: owners, simulators and other processes of the time before. owner: of the simulator that was struck.
        recovered_s: from the strike until its part worked again, as `Watch` tells; None until then.
    """

    kind: str
    time: float
    doomed: frozenset[int] = frozenset()
    known: frozenset[int] = frozenset()
    owner: int | None = None
    back: float | None = None  # when the part itself is there again, where that is seen before it has worked
    recovered_s: float | None = None

    @property
    def part(self) -> str:
        return self.kind.split()[1]


@dataclass
class Watch:
    """Reads along what simulators write down and what the driver learns from."""

    records: Path
    curve: Path
    notes: list[dict[str, Any]] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    _read: int = 0
    _size: int = 0

    def look(self) -> None:
        if self.records.exists():
            with self.records.open("rb") as stream:
                stream.seek(self._read)
                whole = stream.read().rpartition(b"\n")[0]
            self._read += len(whole) + bool(whole)
            self.notes += [json.loads(line) for line in whole.splitlines()]
        size = self.curve.stat().st_size if self.curve.exists() else 0
        if size > self._size:
            self.updates.append(time.time())
        self._size = size  # a resumed run writes it anew, up to where it goes on from

    def worked(self, strike: Strike, family: Family) -> float | None:
        """When the part that was struck first did its work again, if it has."""
        if strike.part in ("server", "learner") and strike.back is None:
            found = family.parts(strike.part)
            if not found or strike.known & set(found):
                return None
            strike.back = time.time()
        if strike.part in ("mlflow", "driver") and strike.back is None:
            return None  # whoever struck it says when it is there
        if strike.part in ("learner", "mlflow", "driver"):
            return next((at for at in reversed(self.updates[-1:]) if at > (strike.back or strike.time)), None)
        for note in self.notes:
            if note["time"] < (strike.back or strike.time):
                continue
            fresh = {
                "server": True,
                "simulator": note["pid"] not in strike.known
                and (note["owner"] == strike.owner or strike.owner not in family.members),
            }.get(strike.part, note["owner"] not in strike.known)
            if fresh:
                return float(note["time"])
        return None


class Striker:
    """Strikes the run, one kind after the other in random order, and looks when it has recovered."""

    def __init__(
        self, kinds: tuple[str, ...], watch: Watch, nodes: Nodes, store: Store | None, driver: Driver, seed: int
    ) -> None:
        self.kinds, self.watch, self.nodes, self.store, self.driver = kinds, watch, nodes, store, driver
        self.strikes: list[Strike] = []
        self._random = random.Random(seed)
        self._bag: list[str] = []
        self._later: list[tuple[float, Callable[[], None]]] = []

    @property
    def open(self) -> list[Strike]:
        """Those that their part has not recovered from."""
        return [strike for strike in self.strikes if strike.recovered_s is None]

    @property
    def done(self) -> bool:
        """Every kind has had its turn."""
        return {strike.kind for strike in self.strikes} == set(self.kinds)

    def look(self) -> None:
        """See to what is due and to what has recovered."""
        self.driver.check()
        now = time.time()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()
        self.watch.look()
        if self.open:
            family = Family()
            for strike in self.open:
                at = self.watch.worked(strike, family)
                if at is not None:
                    strike.recovered_s = at - strike.time
                    print(f"{strike.kind}: recovered after {strike.recovered_s:.1f} s", flush=True)

    def strike(self) -> None:
        """The next kind of which there is something to strike, and nothing on its way back."""
        if not self._bag:
            self._bag = self._random.sample(self.kinds, len(self.kinds))
        family = Family()
        played = {note[name] for note in self.watch.notes for name in ("owner", "pid")}
        away = {strike.part for strike in self.open}
        for kind in self._bag:
            made = Strike(kind, time.time(), known=family.members | played)
            if made.part not in away and getattr(self, f"_{made.part}")(made, family, kind.startswith("kill")):
                print(f"{made.time:.1f} {kind}", flush=True)
                self._bag.remove(kind)
                self.strikes.append(made)
                return

    def _simulators(self, family: Family) -> dict[int, int]:
        """Simulators that have played and are alive, with their runners."""
        return {note["pid"]: note["owner"] for note in self.watch.notes if note["pid"] in family.members}

    def _simulator(self, strike: Strike, family: Family, kill: bool) -> bool:
        there = self._simulators(family)
        if not there:
            return False
        pid = self._random.choice(sorted(there))
        strike.owner, strike.doomed = there[pid], frozenset({pid})
        return send(pid, kill)

    def _actor(self, strike: Strike, family: Family, kill: bool) -> bool:
        there = family.parts(strike.part)
        if strike.part == "runner":  # one that plays
            there = sorted(set(there) & set(self._simulators(family).values()))
        if not there:
            return False
        pid = self._random.choice(there)
        strike.doomed = family.under(pid)
        return send(pid, kill)

    _runner = _server = _learner = _actor

    def _node(self, strike: Strike, family: Family, kill: bool) -> bool:
        playing = set(self._simulators(family).values())
        there = [at for at in range(len(self.nodes.nodes)) if family.under(self.nodes.raylet(at)) & playing]
        if not there:
            return False
        at = self._random.choice(there)
        strike.doomed = family.under(self.nodes.raylet(at))
        self.nodes.lose(at)
        self._later.append((time.time() + OUTAGE_S, self.nodes.replace))
        return True

    def _mlflow(self, strike: Strike, family: Family, kill: bool) -> bool:
        store = self.store
        if store is None or store.process is None:
            return False

        def again() -> None:
            if kill:
                store.close()
                store.start()
            else:
                store.signal(signal.SIGCONT)
            strike.back = time.time()

        store.signal(signal.SIGKILL if kill else signal.SIGSTOP)
        self._later.append((time.time() + OUTAGE_S, again))
        return True

    def _driver(self, strike: Strike, family: Family, kill: bool) -> bool:
        if self.driver.ended or not self.watch.updates:
            return False
        if kill:
            strike.doomed = frozenset(self._simulators(family))
            self.driver.kill()
            self.driver.resume()
            strike.back = strike.time
            return True

        def again() -> None:
            self.driver.process.send_signal(signal.SIGCONT)
            strike.back = time.time()

        self.driver.process.send_signal(signal.SIGSTOP)
        self._later.append((time.time() + OUTAGE_S, again))
        return True


def send(pid: int, kill: bool) -> bool:
    try:
        os.kill(pid, signal.SIGKILL if kill else signal.SIGSTOP)
    except ProcessLookupError:
        return False
    return True
