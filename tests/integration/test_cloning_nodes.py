"""Behaviour cloning loses machines and goes on with others: on fewer, elsewhere, on more; the result stays the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.training.behaviour_cloning import CHECKPOINT
from avavla_ray.training.cloning_state import POLICY
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from tests.support import cloning_ranks
from tests.support.cloning_nodes import STEPS, settings_of
from tests.support.demonstration_data import make_dataset
from tests.support.ports import free_port
from tests.support.ranks import run_ranks

# All tests look at what one program did.
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where the program left its runs, beside "undisturbed", one that was not interrupted."""
    place = tmp_path_factory.mktemp("nodes")
    demos = str(make_dataset(place / "demos", episodes=8))
    settings = settings_of(workers=1)
    run_ranks(cloning_ranks.work, (1, free_port(), [(settings, demos, str(place / "undisturbed"))]), 1)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        # A run that lost a machine waits this long for another one before it goes on with fewer workers.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    }
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.cloning_nodes", demos, str(place)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    print(done.stdout)
    return place


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    return json.loads((place / "found.json").read_text(encoding="utf-8"))


def worlds(output: Path) -> list[int]:
    """Number of workers that took each step, 1 to the last."""
    store = RunCheckpoints(output / CHECKPOINTS, keep=STEPS)
    stored = sorted(store._all(), key=lambda each: each.step)
    assert [each.step for each in stored] == list(range(1, STEPS + 1))
    return [each.facts["world"] for each in stored]


def assert_same_result(place: Path, name: str) -> None:
    newest = RunCheckpoints(place / "undisturbed" / CHECKPOINTS).newest()
    assert newest is not None
    expected = load_checkpoint(newest.path / POLICY).policy.state_dict()
    final = load_checkpoint(place / name / CHECKPOINT)
    assert final.extra["training"]["step"] == STEPS
    weights = final.policy.state_dict()
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=f"{name} {key}")


def test_a_run_that_may_shrink_goes_on_without_the_machine_of_rank_0(place, found):
    before = found["lost_after"]
    assert 4 <= before < STEPS
    assert worlds(place / "lost") == [2] * before + [1] * (STEPS - before)
    assert_same_result(place, "lost")


def test_a_run_that_lost_its_last_machine_moves_to_one_that_comes(found):
    assert max(8, found["lost_after"]) <= found["moved_after"] < STEPS
    assert found["elsewhere"]


def test_what_one_worker_saved_three_continue(place, found):
    before = found["lost_after"]
    assert worlds(place / "three") == [2] * before + [1] * (12 - before) + [3] * (STEPS - 12)
    assert_same_result(place, "three")


def test_a_machine_with_a_folder_of_its_own_is_refused(place, found):
    assert found["refusal"].startswith(f"{place / 'refused'} on ")
    assert "is not the folder that the job was started with: give an --output on a file system" in found["refusal"]
    assert "\n" not in found["refusal"]
    assert RunCheckpoints(place / "refused" / CHECKPOINTS).newest() is None


def test_a_run_that_may_shrink_takes_the_gpus_that_are_left(found):
    assert found["gpus"] == 1.0
