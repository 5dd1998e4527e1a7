"""A PPO run whose machine is lost: the same command on another one goes on with what the store has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy
from tests.support.snapshots import fetched, publisher
from tests.support.unreliable_store import KEYS, Proxy, s3_store

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]


def newest_update(uri: str) -> int:
    """Of the checkpoints that are published; 0 without one."""
    found = (re.match(r"rllib/update_(\d+)/", name) for name in read_manifest(Place.of(uri)).files)
    return max((int(match[1]) for match in found if match), default=0)


def test_a_run_whose_machine_is_lost_goes_on_elsewhere(tmp_path, monkeypatch):
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true", "AVAVLA_CACHE": str(tmp_path / "test")}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "bc"
    save_checkpoint(folder / "checkpoint", responsive_policy(), point_statistics(), stage="bc", provenance={})
    with s3_store() as address:
        proxy = Proxy(address)
        publisher(folder, Place.of(proxy.uri("bc"))).publish()
        proxy.faults = lambda number, method, path: {11: "503", 29: "500", 47: "cut"}.get(number % 60)
        uri = proxy.uri("runs/point-1")
        words = [
            sys.executable, "jobs/ppo_libero.py", "--suite", "tabletop", "--max-steps", "32", "--tasks", "0", "1",
            "--checkpoint", proxy.uri("bc/checkpoint"), "--recipe", "tiny", "--num-runners", "1", "--simulators", "2",
            "--fragment-decisions", "4", "--save-minutes", "0.05", "--run-id", "point-1",
            "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db",
        ]  # fmt: skip
        environment = {
            **os.environ, "RAY_ADDRESS": "local", "AVAVLA_RUNS": proxy.uri("runs"), "AVAVLA_PUBLISH_SECONDS": "1",
        }  # fmt: skip

        def on(machine: str) -> dict[str, str]:
            return {**environment, "AVAVLA_CACHE": str(tmp_path / machine)}

        with (tmp_path / "log").open("w") as log:
            job = subprocess.Popen([*words, "--updates", "100000"], env=on("one"), stdout=log, stderr=log, cwd=ROOT)
            try:
                end = time.monotonic() + 240
                while newest_update(uri) < 2:
                    assert job.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < end, (tmp_path / "log").read_text()
                    time.sleep(0.2)
            finally:
                job.send_signal(signal.SIGKILL)
                job.wait()
        newest = newest_update(uri)
        done = subprocess.run(
            [*words, "--updates", str(newest + 2)], env=on("two"), cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        proxy.faults = lambda number, method, path: None
        assert f"resumed after update {newest}," in done.stdout
        assert f"PPO from {proxy.uri('bc/checkpoint')}" in done.stdout
        assert f"published to {uri}" in done.stdout
        assert "hushhush" not in done.stdout + done.stderr
        run = fetched(Place.of(uri), tmp_path / "reader")
        points = [json.loads(line) for line in run["curve.jsonl"].splitlines()]
        assert [point["total/updates"] for point in points] == list(range(1, newest + 3))
        summary = json.loads(run["summary.json"])
        assert summary["checkpoint"] == proxy.uri("runs/point-1/checkpoint")
        assert summary["provenance"]["store"] == uri
        policy = load_checkpoint(local_copy(proxy.uri("runs/point-1/checkpoint")))
        assert policy.stage == "ppo"
        proxy.close()
