"""Jobs one after another, each as its own process, as a user would type them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avavla_ray.storage.recorded import recorded

JOBS = Path(__file__).resolve().parents[1] / "jobs"


def run_stage(title: str, job: str, words: Sequence[Any]) -> None:
    """Print the command of jobs/JOB.py and run it to its end.

    Raises:
        SystemExit: it failed; the chain ends with its exit status.
    """
    start, texts = time.monotonic(), [str(word) for word in words]
    print(f"\n=== {title}\n$ python jobs/{job}.py {' '.join(recorded(texts))}", flush=True)
    status = subprocess.run([sys.executable, str(JOBS / f"{job}.py"), *texts], check=False).returncode
    if status:
        print(f"jobs/{job}.py ended with status {status}: stopping here", file=sys.stderr)
        raise SystemExit(status)
    print(f"=== took {time.monotonic() - start:.0f} s", flush=True)
