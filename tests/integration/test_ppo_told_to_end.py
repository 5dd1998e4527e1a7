"""A PPO job that is told to end, and the one that goes on with it: nothing is lost, nothing is told twice."""

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
from avavla_ray.tracking import find_runs
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.ray, pytest.mark.long]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_job_saves_when_it_is_told_to_end_and_is_resumed_in_its_mlflow_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    save_checkpoint(tmp_path / "bc", responsive_policy(), point_statistics(), stage="bc", provenance={})
    output, uri = tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db"
    words = [
        sys.executable, str(ROOT / "jobs/ppo_libero.py"), "--suite", "tabletop", "--max-steps", "32", "--tasks", "0",
        "1", "--checkpoint", str(tmp_path / "bc"), "--recipe", "tiny", "--num-runners", "1", "--simulators", "2",
        "--fragment-decisions", "4", "--save-minutes", "60", "--profile", "--output", str(output),
        "--tracking-uri", uri,
    ]  # fmt: skip
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([*words, "--updates", "100000"], env=environment, stdout=log, stderr=log)
        end = time.monotonic() + 200
        while len(lines(output / "curve.jsonl")) < 4:
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        assert job.wait(120) == 1
    said = (tmp_path / "log").read_text()
    saved = int(re.search(r"told to end \(SIGTERM\): saved after update (\d+); --resume goes on", said)[1])
    before = lines(output / "curve.jsonl")
    assert [point["total/updates"] for point in before] == list(range(1, saved + 1)), "nothing that was learned is lost"
    (run,) = find_runs(uri=uri, kind="ppo")
    assert run.info.status == "KILLED"

    more = [*words, "--updates", str(saved + 2), "--resume"]
    done = subprocess.run(more, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resumed after update {saved}" in done.stdout
    line = re.search(r"ppo: .* \| (.*)", done.stdout)[1]
    assert re.fullmatch(
        r"update \d+ env_steps \d+ env_steps/s \S+ success \S+ kl \S+ latent_steps \S+ lag \S+ queue \d+ restarts 0",
        line,
    ), line
    points = lines(output / "curve.jsonl")
    assert points[:saved] == before
    assert [point["total/updates"] for point in points] == list(range(1, saved + 3))
    steps = [point["total/env_steps"] for point in points]
    assert steps == sorted(set(steps))

    (same,) = find_runs(uri=uri, kind="ppo")
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    client = MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(run.info.run_id, "total/updates")
    assert [point.value for point in history] == list(range(1, saved + 3)), "every point once, in order"
    assert [point.step for point in history] == [int(step) for step in steps]
    for point in points:
        shares = {name: share for name, share in point.items() if name.startswith("lag/")}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert sum(int(name.removeprefix("lag/")) * share for name, share in shares.items()) <= 4
    assert any(name.startswith("lag/") for name in same.data.metrics)
    kept = {found.path for found in client.list_artifacts(run.info.run_id)}
    assert kept == {
        "summary.json", "learning_curve.png", "lag.png", "profile.json", "profile.txt", "profile.png",
    }  # fmt: skip
    assert not (output / "mlflow_pending.jsonl").exists()

    episodes = lines(output / "episodes.jsonl")
    names = [episode["episode_id"] for episode in episodes]
    assert len(names) == len(set(names))
    assert len(names) >= points[-1]["total/episodes"]
    spent = json.loads((output / "profile.json").read_text())["seconds"]
    assert {"driver", "learner", "runner", "simulator", "simulator/physics", "simulator/rendering", "simulator/idle",
            "runner/policy", "learner/backward", "driver/waiting"} <= set(spent)  # fmt: skip
    for path, seconds in spent.items():
        assert 0 <= seconds <= spent[path.partition("/")[0]] * 1.01, path
    assert load_checkpoint(output / "checkpoint").extra["version"] == points[-1]["learner/version"]
