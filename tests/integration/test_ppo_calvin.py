"""jobs/ppo_calvin.py on chains, with a fake calvin_env without physics, and with the real one where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.ledger import read_ledger
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.simulators.calvin.installation import HOW_TO_GET
from tests.integration.test_calvin_real import real_root
from tests.support.fake_calvin import FAKE_ROOT
from tests.support.policies import some_statistics, stirred_policy, tiny

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


def train(folder: Path, root: Path, *more: str) -> Path:
    """Two updates from a policy that knows nothing; the output folder."""
    save_checkpoint(folder / "start", stirred_policy(tiny()), some_statistics(), stage="bc", provenance={})
    output = folder / "run"
    words = [
        "--checkpoint", str(folder / "start"), "--recipe", "tiny", "--updates", "2", "--max-steps", "12",
        "--num-runners", "1", "--simulators", "2", "--fragment-decisions", "4", "--update-decisions", "12",
        "--output", str(output), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", *more,
    ]  # fmt: skip
    environment = {**os.environ, "CALVIN_ENV_ROOT": str(root), "RAY_ADDRESS": "local"}
    job = [sys.executable, str(ROOT / "jobs" / "ppo_calvin.py"), *words]
    done = subprocess.run(job, capture_output=True, text=True, cwd=folder, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def check(output: Path) -> None:
    summary = json.loads((output / "summary.json").read_text())
    assert summary["updates"] == 2
    assert summary["provenance"]["simulator"]["suite"] == "calvin_d_chains"
    assert summary["provenance"]["ppo"]["curriculum"] is True
    assert load_checkpoint(output / "checkpoint").stage == "ppo"
    episodes = read_ledger(output / "episodes.jsonl")
    assert {episode["task"] for episode in episodes} <= set(range(5))
    assert len({episode["episode_id"] for episode in episodes}) == len(episodes) > 0


def test_it_trains_on_chains(tmp_path: Path) -> None:
    check(train(tmp_path, FAKE_ROOT, "--train-actions"))


@pytest.mark.skipif(
    real_root() is None or importlib.util.find_spec("pybullet") is None,
    reason=f"no calvin_env with PyBullet: {HOW_TO_GET}",
)
def test_it_trains_in_the_real_scene(tmp_path: Path) -> None:
    root = real_root()
    assert root is not None
    check(train(tmp_path, root, "--render", "fast"))


def test_each_job_sends_to_the_other(tmp_path: Path) -> None:
    for job, suite, other in (("ppo_calvin", "tabletop", "ppo_libero"), ("ppo_libero", "calvin_d", "ppo_calvin")):
        words = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--suite", suite, "--output", str(tmp_path / "run")]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 2
        assert f"jobs/{other}.py" in done.stderr
