"""Which processes there are."""

from __future__ import annotations

import os
import time
from pathlib import Path


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, None when it is gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else (state, int(parent))


def is_alive(pid: int) -> bool:
    return _stat(pid) is not None


def descendants() -> set[int]:
    """This process's descendants that are alive."""
    parents = {int(place.name): stat[1] for place in Path("/proc").glob("[0-9]*") if (stat := _stat(int(place.name)))}
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
