"""What a server has done so far."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

from actors.serving.batching import Decided

RECENT = 1000


class Meter:
    """Counts decisions; times are of the last RECENT ones."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._decisions = 0
        self._batches = 0.0
        self._steps = 0
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def count(self, decided: Decided) -> None:
        self._decisions += 1
        self._batches += 1 / decided.batch  # every request of a batch counts it, so together they count one
        self._steps += decided.answer.latent_steps
        self._recent.append((decided.answer.milliseconds, decided.queued_milliseconds))

    def report(self) -> dict[str, Any]:
        """Means are null before the first decision."""
        report: dict[str, Any] = {"uptime_seconds": time.monotonic() - self._started, "decisions": self._decisions}
        if not self._decisions:
            names = ("milliseconds_mean", "milliseconds_p90", "queued_milliseconds_mean", "batch_mean")
            return report | dict.fromkeys((*names, "latent_steps_mean"))
        decided, queued = np.array(self._recent).T
        return report | {
            "milliseconds_mean": float(decided.mean()),
            "milliseconds_p90": float(np.quantile(decided, 0.9)),
            "queued_milliseconds_mean": float(queued.mean()),
            "batch_mean": self._decisions / self._batches,
            "latent_steps_mean": self._steps / self._decisions,
        }
