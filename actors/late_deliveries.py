"""What is still to come of runners that have been given up or let go."""

from __future__ import annotations

from collections.abc import Iterable

import ray
from ray.exceptions import RayError

from actors.fragment_queue import Lot
from actors.known_runner import Request


class LateDeliveries:
    """Orders whose runner nobody waits for any more; what it delivers in spite of that is not lost."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Request]] = []

    def add(self, seat: int, requests: Iterable[Request]) -> None:
        """Orders of the runner in this seat."""
        self._waiting += [(seat, request) for request in requests]

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
        return lots
