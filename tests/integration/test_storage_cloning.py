"""Behaviour cloning on machines that share no folder: an S3 store is between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from avavla_ray.training.cloning_state import POLICY
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints
from tests.support import cloning_ranks
from tests.support.cloning_nodes import STEPS, settings_of
from tests.support.demonstration_data import make_dataset
from tests.support.ports import free_port
from tests.support.ranks import run_ranks
from tests.support.snapshots import publisher
from tests.support.unreliable_store import KEYS, Proxy, s3_store

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def test_machines_that_share_nothing_train_one_policy_and_go_on_without_that_of_rank_0(tmp_path, monkeypatch):
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true", "AVAVLA_CACHE": str(tmp_path / "test")}.items():
        monkeypatch.setenv(name, value)
    here = make_dataset(tmp_path / "demos", episodes=8)
    settings = settings_of(workers=1)
    run_ranks(cloning_ranks.work, (1, free_port(), [(settings, str(here), str(tmp_path / "undisturbed"))]), 1)
    with s3_store() as address:
        proxy = Proxy(address)
        demos, uri = proxy.uri("demos"), proxy.uri("runs/bc")
        publisher(here, Place.of(demos)).publish()
        slow_or_busy = {7: "503", 23: 1.0, 31: "500", 47: "cut"}
        proxy.faults = lambda number, method, path: slow_or_busy.get(number % 60)
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path / "home"),
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
        }  # fmt: skip
        for name in ("RAY_ADDRESS", "AVAVLA_CACHE"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.cloning_store", demos, uri, str(tmp_path)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
        assert "hushhush" not in done.stdout + done.stderr
        proxy.faults = lambda number, method, path: None
        found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
        assert found["published_when_lost"] >= 4
        assert len(found["machines"]) >= 2
        assert found["resumed_at"] == STEPS
        assert found["second"] == 8
        assert "holds a run already: add --resume" in found["refusal"]
        # What is published is what a run that nobody disturbed ends with.
        final = load_checkpoint(local_copy(proxy.uri("runs/bc/checkpoint")))
        kept = read_manifest(Place.of(uri) / CHECKPOINTS).files
        assert any(name.startswith(f"step-{STEPS:09d}/") for name in kept)
        assert not any(name.startswith(CHECKPOINTS) for name in read_manifest(Place.of(uri)).files)
        proxy.close()
    newest = RunCheckpoints(tmp_path / "undisturbed" / CHECKPOINTS).newest()
    assert newest is not None
    expected = load_checkpoint(newest.path / POLICY).policy.state_dict()
    assert final.extra["training"]["step"] == STEPS
    for key, value in final.policy.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=key)
