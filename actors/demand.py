"""How many runners there should be: from who has waited for whom."""

from __future__ import annotations


class Demand:
    """Weighs, over one window after the other, the time that runners were held back against the learner's.

    Args:
        window_s: one runner's worth of idle time in so many seconds is one runner too many; a learner that waits for
            half of them wants one more.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._begun: float | None = None
        self._last = self._idle = self._starved = 0.0

    def change(self, now: float, *, idle: int, starved: bool) -> int:
        """-1: let a runner go; 1: ask for one more; 0: leave it.

        Args:
            now: in seconds, of any clock. idle: runners that have been held back since the last call.
            starved: whether the learner has waited for fragments since then.
        """
        if self._begun is None:
            self._begun = self._last = now
        passed, self._last = now - self._last, now
        self._idle += idle * passed
        self._starved += starved * passed
        if now - self._begun < self._window_s:
            return 0
        window, idle_s, starved_s = now - self._begun, self._idle, self._starved
        self._begun, self._idle, self._starved = now, 0.0, 0.0
        return -1 if idle_s >= window else int(starved_s >= window / 2)
