"""Stops and kills the processes of a cloning run at chosen moments, which its folder of checkpoints tells of."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from avavla_ray.training.run_lock import LOCK
from tests.support.processes import is_alive

_T = TypeVar("_T")


def wait_for(look: Callable[[], _T | None], what: str, seconds: float = 120.0) -> _T:
    """What `look` finds once it finds something."""
    end = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < end, f"no {what} in {seconds:.0f} s"
        time.sleep(0.001)
    return found


def writer(checkpoints: Path) -> int | None:
    """The process that writes there, None where none that is alive does."""
    try:
        told = re.match(r"process (\d+) ", (checkpoints / LOCK).read_text())
    except FileNotFoundError:
        return None
    return int(told[1]) if told and is_alive(int(told[1])) else None


def workers(family: set[int]) -> set[int]:
    """The training workers among these processes."""
    found = set()
    for pid in family:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"RayTrainWorker" in command:
            found.add(pid)
    return found


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open, which it may be waiting to lock."""
    try:
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False


def torn_steps(checkpoints: Path) -> set[int]:
    """Steps of which there is half a checkpoint: one that is being written, or was when its writer died."""
    whole = {int(path.name.split("-")[1]) for path in checkpoints.glob("step-*")}
    torn = {int(path.name.split("-")[1].partition(".")[0]) for path in checkpoints.glob(".step-*.tmp")}
    # Those that are older than a whole one are being removed.
    return {step for step in torn if step > max(whole, default=0)}


def stop_while_writing(checkpoints: Path, after: int, patience: float = 120.0) -> tuple[int, int]:
    """Freeze the process that writes in the middle of a checkpoint later than step `after`; it and the step."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        pid = writer(checkpoints)
        if pid is not None and any(step > after for step in torn_steps(checkpoints)):
            os.kill(pid, signal.SIGSTOP)
            wait_for(functools.partial(_frozen, pid), "frozen writer", 10)
            if torn := torn_steps(checkpoints):
                return pid, max(torn)
            os.kill(pid, signal.SIGCONT)  # it was done before the signal came
        time.sleep(0.0005)
    raise AssertionError(f"no checkpoint after step {after} was being written in {patience:.0f} s")


def _frozen(pid: int) -> int | None:
    """The process once all its threads stand still."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return pid if set(states) == {"T"} else None
