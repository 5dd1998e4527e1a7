"""Learners reserve the GPUs that they compute on, also those of machines that are still to come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    for name in ("RAY_ADDRESS", "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.gpu_nodes"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_machines_that_an_autoscaler_could_start_are_counted(found: dict[str, Any]) -> None:
    assert found["head alone"] == 0
    assert (found["could"], found["cloning"]) == (2, 1)  # and neither the simulators' machines nor the head
    assert found["processors"] == 4 * 32 + 2 * 8
    assert found["without limit"]
    assert found["here"] == 2


def test_each_rank_has_a_device_of_its_own(found: dict[str, Any]) -> None:
    assert sorted(visible for visible, _ in found["one each"]) == ["0", "1"]
    assert {deepspeed for _, deepspeed in found["one each"]} == {None}


def test_without_a_gpu_a_rank_sees_none_on_a_machine_that_has_some(found: dict[str, Any]) -> None:
    assert found["none"] == [["", "cpu"]] * 2
