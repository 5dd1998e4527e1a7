"""Leaving when told to: what "ray job stop" and Kubernetes send ends training at a safe place, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):
    """The process has been told to end."""


class Stopping:
    """Inside a `with` block SIGTERM ends nothing: `check` raises from then on.

    In another thread than the main one, which gets no signals, nothing changes.
    """

    def __init__(self) -> None:
        self._told = False
        self._before: Any = None

    def check(self) -> None:
        """Raise Stopped once SIGTERM has come."""
        if self._told:
            raise Stopped

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
