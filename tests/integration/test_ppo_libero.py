"""The PPO job on real LIBERO: submitted to a cluster without any checkpoint to start from, then resumed as a script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.files import cache_folder
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import flatten
from avavla_ray.tracking import find_runs
from jobs.ppo_libero import Settings, main
from tests.support.demonstration_data import make_dataset
from tests.support.point_simulator import point_statistics
from tests.support.policies import some_statistics

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass(frozen=True)
class Head:
    """A Ray head of this test's own. `environment`: for whoever talks to it."""

    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: sockets are made below it
    gcs, dashboard, agent, grpc, client = free_ports(5)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        # Its own home: a token that another cluster left in ~/.ray would be asked for.
        "HOME": str(folder), "RAY_AUTH_MODE": "disabled", "PATH": f"{BIN}:{os.environ['PATH']}",
        "AVAVLA_CACHE": str(cache_folder()), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }  # fmt: skip
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        [
            str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=3",
            f"--temp-dir={folder}/t", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}",
            f"--ray-client-server-port={client}",
        ],
        env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{dashboard}", time.monotonic() + 90
    try:
        while not answers(address):
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < end, "the head's dashboard does not answer"
            time.sleep(0.3)
        yield Head(address, environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The job's arguments but for its budget."""
    folder = tmp_path_factory.mktemp("ppo")
    return [
        "--preset", "tiny", "--recipe", "tiny", "--tasks", "0", "--max-steps", "64", "--num-runners", "1",
        "--simulators", "1", "--fragment-decisions", "8", "--cloning-episodes", "2", "--cloning-minutes", "0.05",
        "--output", f"{folder}/run", "--tracking-uri", f"sqlite:///{folder}/mlflow.db",
    ]  # fmt: skip


def output_of(words: list[str]) -> Path:
    return Path(words[words.index("--output") + 1])


def curve(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]


@pytest.mark.libero
@pytest.mark.ray
def test_a_submitted_job_clones_first_and_then_learns_in_libero(head: Head, words: list[str]) -> None:
    done = subprocess.run(
        [str(BIN / "ray"), "job", "submit", "--address", head.address, "--working-dir", ".", "--",
         "python", "jobs/ppo_libero.py", *words, "--updates", "2"],
        cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no --checkpoint: collecting 2 demonstrations" in done.stdout
    assert "2 updates, " in done.stdout

    output = output_of(words)
    start, trained = load_checkpoint(output / "cloning/bc/checkpoint"), load_checkpoint(output / "checkpoint")
    assert (start.stage, trained.stage) == ("bc", "ppo")
    assert trained.provenance["trained_from"] == start.digest
    assert trained.provenance["simulator"]["suite"] == "libero_object"
    assert trained.provenance["simulator"]["assets"] == "bundled"
    change = np.abs(flatten(trained.policy).array - flatten(start.policy).array)
    assert 0 < change.max() < 1e-2
    points = curve(output)
    assert [point["total/updates"] for point in points] == [1, 2]
    assert all(point["learner/cloning_loss"] > 0 for point in points)
    assert all(point["learner/first_kl"] < 1e-5 for point in points)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["updates"] == 2
    assert summary["env_steps"] >= 2 * 16
    assert (output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    (run,) = find_runs(uri=words[-1], kind="ppo")
    assert run.data.metrics["learner/version"] >= 2
    assert run.info.status == "FINISHED"


@pytest.mark.libero
@pytest.mark.ray
def test_a_script_resumes_where_the_job_stopped(words: list[str]) -> None:
    output = output_of(words)
    before = curve(output)
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(
        [str(ROOT / "jobs/ppo_libero.py"), *words, "--updates", "3", "--resume"],
        env={**environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed after update 2" in done.stdout
    points = curve(output)
    assert points[:2] == before
    assert [point["total/updates"] for point in points] == [1, 2, 3]
    assert points[2]["total/env_steps"] > points[1]["total/env_steps"]
    assert points[2]["learner/version"] > points[1]["learner/version"]
    episodes = [json.loads(line)["episode_id"] for line in (output / "episodes.jsonl").read_text().splitlines()]
    assert len(episodes) == len(set(episodes))
    (run,) = find_runs(uri=words[-1], kind="ppo")
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "libero_objekt"}, "did you mean 'libero_object'"),
        ({"tasks": (12,)}, "task 12 does not exist"),
        ({"checkpoint": Path("nowhere")}, "there is no checkpoint at nowhere"),
        ({"demos": Path("nowhere")}, "no demonstrations at nowhere"),
        ({"recipe": "papre"}, "did you mean 'paper'"),
        ({"minutes": 0.0}, "minutes 0.0: training needs more than none"),
        ({"exit_threshold": 1.5}, "exit threshold 1.5"),
        ({"num_runners": 0}, "at least 1"),
        ({"resume": True}, "holds no run to resume"),
        ({"unnorm_key": "arm"}, "--unnorm-key names a data set of the --checkpoint"),
    ],
)
def test_bad_input_is_named_before_anything_starts(changes: dict, message: str, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = replace(Settings(output=tmp_path / "run", tracking_uri=uri), **changes)
    with pytest.raises(InputError, match=message):
        main(settings)
    assert not (tmp_path / "run").exists(), "a refused run must not use up its folder"


def test_one_of_several_data_sets_is_named_and_a_resumed_run_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: replace(some_statistics(), name=name) for name in ("first", "other")}
    save_checkpoint(tmp_path / "bc", AvaVlaPolicy(preset("tiny")), known, stage="bc", provenance={})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings(checkpoint=tmp_path / "bc", output=tmp_path / "run", tracking_uri=uri)
    with pytest.raises(InputError, match="name one of first, other"):
        main(settings)
    with pytest.raises(InputError, match="did you mean 'first'"):
        main(replace(settings, unnorm_key="frist"))
    assert not (tmp_path / "run").exists()

    def no_cluster(cpus: int) -> None:
        raise ConnectionError(f"{cpus} processors")

    monkeypatch.setattr("actors.cluster.connect", no_cluster)
    with pytest.raises(ConnectionError):
        main(replace(settings, unnorm_key="first"))
    with pytest.raises(InputError, match=r"other settings \(unnorm_key first -> other\)"):
        main(replace(settings, unnorm_key="other", resume=True))


def test_demonstrations_must_go_with_the_checkpoint(tmp_path: Path) -> None:
    demos = make_dataset(tmp_path / "demos", episodes=2)
    settings = Settings(output=tmp_path / "run", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", demos=demos)
    with pytest.raises(InputError, match="give that too"):
        main(settings)
    policy = AvaVlaPolicy(preset("tiny"))
    save_checkpoint(tmp_path / "bc", policy, point_statistics(), stage="bc", provenance={})
    with pytest.raises(InputError, match="in other units"):
        main(replace(settings, checkpoint=tmp_path / "bc"))
    assert not (tmp_path / "run").exists()
