"""Which processes there are."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, None when it is gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else (state, int(parent))


def is_alive(pid: int) -> bool:
    return _stat(pid) is not None


def _parents() -> dict[int, int]:
    """The parent of every process that is alive."""
    return {int(place.name): stat[1] for place in Path("/proc").glob("[0-9]*") if (stat := _stat(int(place.name)))}


def descendants() -> set[int]:
    """This process's descendants that are alive."""
    parents = _parents()
    family = {os.getpid()}
    while children := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= children
    return family - {os.getpid()}


def wait_until_gone(pids: set[int], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while alive := {pid for pid in pids if is_alive(pid)}:
        assert time.monotonic() < end, f"{alive} live on"
        time.sleep(0.02)


def left_behind() -> tuple[set[int], int, set[str]]:
    """What simulators could leave: processes, open files, named memory (but Ray's, whose clusters come and go)."""
    named = {name for name in os.listdir("/dev/shm") if not name.startswith("plasma")}
    return descendants(), len(os.listdir("/proc/self/fd")), named


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Inside, processes whose parents die become this one's children; those that are left at the end are killed.

    Otherwise the kernel ends a frozen one with its parent, and nobody would know of the others.
    """
    before = _children()
    _set_subreaper(True)
    try:
        yield
    finally:
        while left := _children() - before:  # each of which may leave orphans
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        _set_subreaper(False)


def _children() -> set[int]:
    return {pid for pid, parent in _parents().items() if parent == os.getpid()}


def _set_subreaper(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
