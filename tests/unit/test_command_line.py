"""Every job answers --help quickly and turns bad input into one line and status 2."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted((ROOT / "jobs").glob("[a-z]*.py"))


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_help_is_quick_and_loads_nothing_heavy(job):
    start = time.perf_counter()
    result = run("-X", "importtime", job, "--help")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "--" in result.stdout
    assert time.perf_counter() - start < 20  # the promise is 5 s; this machine may be busy
    loaded = {line.rsplit("|", 1)[1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert not loaded & {"torch", "ray", "mujoco", "mlflow", "transformers", "deepspeed"}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_jobs_are_executable(job):
    assert os.access(job, os.X_OK)
    assert job.read_text().startswith("#!/usr/bin/env python\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--checkpoint", "nowhere"), "nowhere"),
        (("bc_libero", "--demos", "nowhere"), "jobs/collect_demos.py --output nowhere"),
        (("bc_libero", "--demos", "nowhere", "--preset", "smal"), "did you mean 'small'?"),
        (("ppo_libero", "--no-isolate", "--tasks", "99"), "libero_object has tasks 0 to 9"),
        (("collect_demos", "--suite", "libero_9"), "did you mean 'libero_90'?"),
        (("compare", "--suite", "libero_objects"), "did you mean 'libero_object'?"),
        (("compare", "--tracking-uri", "plain/folder"), "sqlite:///PATH.db"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, message):
    job, *rest = words
    result = run(f"jobs/{job}.py", *rest)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
