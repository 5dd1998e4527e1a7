"""Several transfers at once, and lines about those that take long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 8
LARGE = 256 << 20  # bytes: what takes more is worth a line
TELL_S = 30.0

Item = TypeVar("Item")


class Telling:
    """Lines about a transfer that takes long; none about a small one."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._lock = what, total, 0, threading.Lock()
        self._told = self._begun = time.monotonic()
        if total >= LARGE:
            print(f"{what}, {total / 1e9:.1f} GB", flush=True)

    def passed(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._total >= LARGE and time.monotonic() - self._told >= TELL_S:
                self._told = time.monotonic()
                print(f"{self._what}: {self._done / 1e9:.1f} of {self._total / 1e9:.1f} GB", flush=True)

    def end(self) -> None:
        if self._total >= LARGE:
            print(f"{self._what}: done in {time.monotonic() - self._begun:.0f} s", flush=True)


def all_at_once(act: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call `act` for every item from several threads; the first error is raised when those that run have ended."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="store") as pool:
        calls = [pool.submit(act, item) for item in items]
        try:
            for call in calls:
                call.result()
        except BaseException:
            for call in calls:
                call.cancel()
            raise
