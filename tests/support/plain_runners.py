"""Runners that play nothing, and so start at once: for tests of the pool that looks after runners.

What they do next is written into a file, since an actor that hangs hears of nothing else.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import gcs_pb2

from actors.orders import NotStarted, Order
from actors.report import Report
from actors.watchdog import NoTaskLeft
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import EpisodeSummary, SimulatorFailure


class PlainRunner:
    """Delivers an episode an order, of as many decisions as the order says; its task and seed tell its place."""

    def __init__(self, folder: Path, seat: int) -> None:
        self._folder, self._seat, self._name, self._played = folder, seat, "", 0

    def _fate(self) -> str:
        file = self._folder / str(self._seat)
        fate = file.read_text() if file.exists() else ""
        if fate.endswith("once"):
            file.unlink()
        return fate.removesuffix("once")

    def hello(self) -> dict[str, Any]:
        file = self._folder / str(self._seat)
        leaving = "the provider takes the machine back" if file.exists() and file.read_text() == "leave" else None
        return {"node": "here", "host": "localhost", "pid": os.getpid(), "leaving": leaving}

    def start(self, incarnation: int) -> dict[str, Any]:
        self._meet("start ")
        self._name, self._played = f"{self._seat}.{incarnation}", 0
        return {"simulator": "none"}

    def deliver(self, order: Order) -> tuple[list[str], Report]:
        if not self._name:
            raise NotStarted("this runner has not been started")
        time.sleep(0.02)
        leaving = self._meet("")
        place, of = order.place or (0, 0)
        episode = EpisodeSummary(f"{self._name}-{self._played}", place, None, of, True, 1, order.decisions, 1.0)
        self._played += 1
        return [self._name], Report(order.handle.version, order.decisions, finished=[episode], leaving=leaving)

    def handed_in(self) -> None:
        with (self._folder / f"{self._seat}.thanked").open("a") as file:
            file.write("thanks\n")

    def _meet(self, when: str) -> str | None:
        fate = self._fate()
        kind = fate.removeprefix(when) if fate.startswith(when) else ""
        if kind == "die":
            os.kill(os.getpid(), 9)
        if kind == "hang":
            time.sleep(1000)
        if kind == "refuse":
            raise InputError("no simulator here: install one")
        if kind == "fail":
            raise SimulatorFailure("no simulator starts", "crash")
        if kind == "no task":
            failure = NoTaskLeft("no task is left to play", "crash")
            failure.quarantined = {0: "sick"}
            raise failure
        if kind == "no weights":
            raise ray.exceptions.ObjectLostError("0" * 56, None, "")
        if kind == "slow err":  # the order behind this one takes longer than anybody waits for a hello
            (self._folder / str(self._seat)).write_text("slow")
        if kind == "slow":
            time.sleep(4)
        if kind.endswith("err"):
            raise KeyError("a fault of the program")
        return "the provider takes the machine back" if kind == "leave" else None


class PlainGroup:
    """As actors.runner_group.RunnerGroup, without RLlib."""

    def __init__(self, folder: Path, seats: int) -> None:
        self.folder, self.seats = folder, tuple(range(1, seats + 1))
        self.actors: dict[int, Any] = {}
        self.healthy: set[int] = set()
        for seat in self.seats:
            self.fill(seat)

    def actor(self, seat: int) -> Any:
        return self.actors[seat]

    def fill(self, seat: int) -> Any:
        self.empty(seat)
        cpus = 100 if (self.folder / f"{seat}.room").exists() else 0
        actor: Any = ray.remote(max_restarts=-1, num_cpus=cpus)(PlainRunner)
        self.actors[seat] = actor.remote(self.folder, seat)
        return self.actors[seat]

    def empty(self, seat: int) -> None:
        if seat in self.actors:
            ray.kill(self.actors.pop(seat))
        self.healthy.discard(seat)

    def restart(self, seat: int) -> None:
        ray.kill(self.actors[seat], no_restart=False)

    def stands(self, seat: int) -> bool:
        return bool(self.actors[seat]._get_local_state() == gcs_pb2.ActorTableData.ALIVE)

    def mark(self, seat: int, *, healthy: bool) -> None:
        (self.healthy.add if healthy else self.healthy.discard)(seat)
