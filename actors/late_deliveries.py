"""What is still to come of runners that have been given up or let go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import ray
from ray.exceptions import RayError

from actors.fragment_queue import Lot
from actors.known_runner import Request

HAND_IN_S = 30.0


class LateDeliveries:
    """Orders whose runner nobody waits for any more; what it delivers in spite of that is not lost.

    Args:
        end: called with a seat whose runner has been let go, when it has handed in, or after `HAND_IN_S`.

    Attributes:
        going: until when such runners have time, by seat.
    """

    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end
        self._waiting: list[tuple[int, Request]] = []
        self.going: dict[int, float] = {}

    def add(self, seat: int, requests: Iterable[Request]) -> None:
        """Orders of the runner in this seat."""
        self._waiting += [(seat, request) for request in requests]

    def add_last(self, seat: int, request: Request) -> None:
        """The last order of a runner that is let go."""
        self.add(seat, [request])
        self.going[seat] = time.monotonic() + HAND_IN_S

    def take(self) -> list[Lot]:
        """What has been delivered since the last call."""
        reports = [request.report for _, request in self._waiting]
        ready = set(ray.wait(reports, num_returns=len(reports), timeout=0, fetch_local=False)[0]) if reports else set()
        lots = []
        for seat, request in self._waiting:
            if request.report in ready:
                try:
                    lots.append(Lot(request.fragments, ray.get(request.report), seat, request.round, request.node))
                except RayError:
                    continue  # nothing was; its runner has been seen to
        self._waiting = [(seat, request) for seat, request in self._waiting if request.report not in ready]
        waited_for = {seat for seat, _ in self._waiting}
        for seat, until in list(self.going.items()):
            if seat not in waited_for or time.monotonic() > until:
                del self.going[seat]
                self._end(seat)
        return lots
