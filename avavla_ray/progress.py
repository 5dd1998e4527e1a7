"""Progress for people: a bar on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts towards a total, with rate and time left.

    On a terminal it is a tqdm bar. Elsewhere it prints a line at most every `interval` seconds and one at the end.
    """

    def __init__(self, total: int, label: str, unit: str = "it", done: int = 0, interval: float = 10.0) -> None:
        self.total, self.label, self.unit, self.interval = total, label, unit, interval
        self.count, self._first = done, done
        self._start = self._last = time.monotonic()
        self._note = ""
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit=unit, initial=done)

    def advance(self, amount: int = 1, **notes: float | int | str) -> None:
        """Count `amount` more and show `notes` beside the rate."""
        self.count += amount
        self._note = " ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in notes.items())
        if self._bar is not None:
            self._bar.update(amount)
            if self._note:
                self._bar.set_postfix_str(self._note)
        elif time.monotonic() - self._last >= self.interval:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        rate = (self.count - self._first) / max(self._last - self._start, 1e-9)
        left = f", {(self.total - self.count) / rate:.0f} s left" if rate > 0 and self.count < self.total else ""
        note = f" | {self._note}" if self._note else ""
        print(f"{self.label}: {self.count}/{self.total} {self.unit}, {rate:.3g}/s{left}{note}", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._print()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
