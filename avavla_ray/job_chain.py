"""Jobs one after another, each as its own process, as a user would type them."""

from __future__ import annotations

import contextlib
import ctypes
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avavla_ray.storage.recorded import recorded
from avavla_ray.told_to_end import leaving_on_sigterm

JOBS = Path(__file__).resolve().parents[1] / "jobs"
ENDING_S = 60.0  # a job that is told to end saves what it has in that time
HEARD_S = 10.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_stage(title: str, job: str, words: Sequence[Any]) -> None:
    """Print the command of jobs/JOB.py and run it to its end.

    A chain that is told to end (SIGTERM, Ctrl-C) tells the job, and waits until it has saved what it has. On Linux the
    job is told, too, when the chain is killed: alone it would hold the folder against the command that goes on.

    Raises:
        SystemExit: it failed, and the chain ends with its exit status; or the chain was told to end.
    """
    start, texts = time.monotonic(), [str(word) for word in words]
    print(f"\n=== {title}\n$ python jobs/{job}.py {shlex.join(recorded(texts))}", flush=True)
    with leaving_on_sigterm("told to end (SIGTERM)"):
        process = subprocess.Popen([sys.executable, str(JOBS / f"{job}.py"), *texts], preexec_fn=_told_when_orphaned())
        try:
            status = process.wait()
        except KeyboardInterrupt:
            _end(process, heard=True)
            raise
        except BaseException:
            _end(process)
            raise
    if status:
        print(f"jobs/{job}.py ended with status {status}: stopping here", file=sys.stderr)
        raise SystemExit(status if status > 0 else 1)  # negative: the signal that killed it
    print(f"=== took {time.monotonic() - start:.0f} s", flush=True)


def _told_when_orphaned() -> Callable[[], None] | None:
    """What a new process runs first, so that it gets SIGTERM when this one dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after a fork nothing may be loaded
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], heard: bool = False) -> None:
    """Tell a job to end, and kill it if it does not.

    Args:
        heard: a terminal's Ctrl-C is the job's, too: what it does then is not to be disturbed.
    """
    if heard:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HEARD_S)
            return
    process.terminate()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
