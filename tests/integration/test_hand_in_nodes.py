"""A machine that is taken away with notice: what its runners had played is learned from after it has gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avavla_ray.policy.checkpoint import save_checkpoint
from tests.support.leaving_node import HOOK_S, RUNNERS
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
@pytest.mark.long
def test_what_is_handed_in_outlives_the_machine_that_played_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "policy", responsive_policy(), point_statistics(), stage="bc", provenance={})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.leaving_node", str(tmp_path / "policy"), str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    print(found)
    assert found["waited_for"] == RUNNERS
    assert found["lay_there_alone"] >= 6, "in the store of a machine that is to go, and nowhere else"
    assert found["hook"] == 0, "all was handed in"
    assert found["hook_s"] < float(HOOK_S) / 2
    assert found["left"] == RUNNERS
    assert found["lie_on_the_head"] == found["lots"] > found["lay_there_alone"], "the last deliveries, too"
    assert found["left_behind"] == "is lost", "what nobody copied went with the machine"
    assert found["decisions"] == found["handed_in"] > 0
    assert found["learned_from"] > 0
    assert found["dropped"] == 0
