"""Every job ends with status 1 when it is told to end, though Ray has a handler of its own for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ray


def test_a_job_that_has_joined_a_cluster_ends_with_1(ray_cluster: dict[str, str]) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.support.waiting_job"], cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any("WAITING" in line for line in job.stdout), job.stderr.read()
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=60)
    finally:
        job.kill()
    assert (job.returncode, said.strip().splitlines()[-1]) == (1, "told to end (SIGTERM)"), said
    assert "Traceback" not in said
