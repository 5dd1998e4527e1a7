"""How fast training goes, and how much of the time it waits for data."""

from __future__ import annotations

import time


class Meter:
    """Decisions a second and the share of time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self._waited, self._decisions, self._since = 0.0, 0, time.perf_counter()

    def add(self, decisions: int, waited: float) -> None:
        """Count a step over `decisions` that first waited so many seconds for its batch."""
        self._decisions += decisions
        self._waited += waited

    def read(self) -> dict[str, float]:
        """ "decisions_per_s" and "data_wait_share"; starts anew."""
        now = time.perf_counter()
        spent = max(now - self._since, 1e-9)
        numbers = {"decisions_per_s": self._decisions / spent, "data_wait_share": self._waited / spent}
        self._waited, self._decisions, self._since = 0.0, 0, now
        return numbers
