"""Where a process spends its time: a tree of named spans, which cost next to nothing while they are switched off.

    with span("physics"):
        ...

Spans inside spans make paths, "physics/contacts". Each thread has its own place in the tree; what several threads spend
under one path is added up.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

_on = False
_lock = threading.Lock()
_sums: dict[str, list[float]] = {}  # path -> [seconds, count]
_since = 0.0


class _Here(threading.local):
    """Where in the tree this thread is."""

    path = ""


_here = _Here()


class _Off:
    """What `span` returns while nobody looks. Its methods are the cheapest calls that do nothing: functions written in
    Python cost twice as much."""

    __slots__ = ()
    __enter__ = ().__len__
    __exit__ = "".format


_OFF: Any = _Off()


class _Span:
    __slots__ = ("_before", "_begun", "_beside", "_name")

    def __init__(self, name: str, beside: bool) -> None:
        self._name, self._beside = name, beside

    def __enter__(self) -> None:
        self._before = _here.path
        parent = self._before.rpartition("/")[0] if self._beside else self._before
        _here.path = f"{parent}/{self._name}" if parent else self._name
        self._begun = time.perf_counter()

    def __exit__(self, kind: type | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._begun
        with _lock:
            sums = _sums.setdefault(_here.path, [0.0, 0])
            sums[0] += seconds
            sums[1] += 1
            if self._beside and self._before:  # that one will count all of its time when it ends
                _sums.setdefault(self._before, [0.0, 0])[0] -= seconds
        _here.path = self._before


def span(name: str, beside: bool = False) -> AbstractContextManager[None]:
    """Time what happens inside a `with` block, under `name` below the span that this thread is in.

    Args:
        beside: below that span's parent instead, and not as part of that span's time.
    """
    return _Span(name, beside) if _on else _OFF


def switch(on: bool) -> None:
    """Begin to time this process, with an empty tree, or stop."""
    global _on, _since
    with _lock:
        _sums.clear()
        _since = time.perf_counter()
    _on = on


def is_on() -> bool:
    return _on


def take(root: str) -> dict[str, tuple[float, int]]:
    """(seconds, how often) of every path since the last call or since it was switched on; empty while switched off.

    Args:
        root: put before every path; under its own name stands the wall time, all of it.

    Spans that have not ended are counted when they do.
    """
    global _since
    if not _on:
        return {}
    with _lock:
        now = time.perf_counter()
        taken = {root: (now - _since, 1)}
        taken |= {f"{root}/{path}": (seconds, int(count)) for path, (seconds, count) in _sums.items()}
        _sums.clear()
        _since = now
    return taken


def take_seconds(root: str) -> dict[str, float]:
    """`take` without the counts, as reports carry it."""
    return {path: seconds for path, (seconds, _) in take(root).items()}
