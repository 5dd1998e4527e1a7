"""Jobs submitted to a Ray head over HTTP: what is shipped, exit codes, stopping, and going on under one --run-id."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ray.job_submission import JobSubmissionClient

from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.weights import flatten
from avavla_ray.tracking import find_runs
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy
from tests.support.ray_head import BIN, ENDED, ROOT, Head, started_head

pytestmark = pytest.mark.ray
UPDATES = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the head's runs and its MLflow store are."""
    return tmp_path_factory.mktemp("head")


@pytest.fixture(scope="module")
def head(place: Path) -> Iterator[Head]:
    # What cluster/ sets on a head; AVAVLA_GL is for a machine that renders otherwise than the job says.
    variables = {"AVAVLA_RUNS": str(place / "runs"), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
    with started_head(cpus=3, AVAVLA_GL="egl", **variables) as started:
        yield started


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this project, with what must not be shipped lying about in it."""
    folder = tmp_path_factory.mktemp("checkout") / "project"
    folder.mkdir()
    unbuilt = shutil.ignore_patterns("__pycache__")
    for name in ("avavla_ray", "actors", "jobs", "tune_spaces", "tests/support"):
        shutil.copytree(ROOT / name, folder / name, ignore=unbuilt)
    for name in (".gitignore", ".rayignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "x"]):
        git(folder, *words)
    for name in AT_HOME:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(3 << 20))  # together more than the 100 MiB that Ray takes
    return folder


AT_HOME = (
    ".env", "cluster/.env.local", "robots.pem", "id_rsa", ".aws/credentials", "notes.txt", "scratch/mine.py",
    *(f".venv/lib/{number}.so" for number in range(8)), *(f"runs/bc/checkpoint/{number}" for number in range(8)),
    *(f"demos/{number}.parquet" for number in range(8)), *(f"videos/{number}.mp4" for number in range(8)),
)  # fmt: skip


def test_a_job_gets_the_code_its_commit_and_each_machines_renderer(head: Head, project: Path) -> None:
    environment = {name: value for name, value in head.environment.items() if name != "AVAVLA_COMMIT"}
    made = subprocess.run(
        [sys.executable, "-m", "avavla_ray.submission", "MUJOCO_GL=osmesa"],
        cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "not shipped, since git does not know it" in made.stderr
    assert {"notes.txt", "scratch"} <= set(re.split(r"[ ,\n]+", made.stderr))
    done = head.submit(
        "python", "-m", "tests.support.probe_job", options=["--runtime-env-json", made.stdout], cwd=project
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))

    tracked = git(project, "ls-files").splitlines()
    shipped = {name: size for name, size in found["files"].items() if "__pycache__" not in name}
    assert sorted(shipped) == sorted(tracked)
    assert sum(shipped.values()) < 8 << 20
    assert found["code"] == found["here"] == found["actor"]["code"] != str(ROOT)
    assert found["commit"] == found["actor"]["commit"] == git(project, "rev-parse", "HEAD")
    assert found["actor"]["told"] == {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "egl", "MUJOCO_EGL_DEVICE_ID": "0"}
    assert found["actor"]["renders"] == {**found["actor"]["told"], "MUJOCO_GL": "egl"}
    assert found["actor"]["threads"] == "1"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def test_bad_input_is_2_in_the_jobs_details_and_1_on_rays_command_line(head: Head) -> None:
    done = head.submit(
        "python", "jobs/evaluate.py", "--checkpoint", "nowhere",
        options=["--working-dir", ".", "--submission-id", "bad"],
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: there is no checkpoint at nowhere" in done.stdout
    job = head.job("bad")
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)


@pytest.mark.long
def test_a_stopped_job_goes_on_when_it_is_submitted_again(head: Head, place: Path) -> None:
    save_checkpoint(place / "policy", responsive_policy(), point_statistics(), stage="bc", provenance={})
    job = (
        "python", "jobs/ppo_libero.py", "--suite", "tests.support.point_simulator:PointSimulator", "--checkpoint",
        str(place / "policy"), "--recipe", "tiny", "--num-runners", "1", "--simulators", "2", "--fragment-decisions",
        "4", "--no-isolate", "--train-gate", "False", "--run-id", "point-1", "--updates", str(UPDATES),
    )  # fmt: skip
    output = place / "runs/point-1"

    begun = head.submit(*job, options=["--working-dir", ".", "--submission-id", "first", "--no-wait"])
    assert begun.returncode == 0, begun.stdout + begun.stderr
    assert head.job("first")["status"] not in ENDED
    end = time.monotonic() + 90
    while len(curve(output)) < 2:
        assert head.job("first")["status"] not in ENDED, head.logs("first")
        assert time.monotonic() < end, head.logs("first")
        time.sleep(0.02)
    client = JobSubmissionClient(head.address)
    assert client.stop_job("first")
    assert head.ended("first")["status"] == "STOPPED"
    assert "told to end (SIGTERM): saved after update " in head.logs("first")
    before = curve(output)
    assert 2 <= len(before) < UPDATES
    (run,) = find_runs(uri=f"sqlite:///{place}/mlflow.db", kind="ppo")
    assert run.info.status == "KILLED"

    again = client.submit_job(entrypoint=" ".join(job), runtime_env={"working_dir": str(ROOT)})
    assert head.ended(again)["driver_exit_code"] == 0, head.logs(again)
    assert f"resumed after update {len(before)}" in head.logs(again)
    points = curve(output)
    assert [point["total/updates"] for point in points] == list(range(1, UPDATES + 1))
    assert points[: len(before)] == before
    (same,) = find_runs(uri=f"sqlite:///{place}/mlflow.db", kind="ppo")
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    episodes = [json.loads(line)["episode_id"] for line in (output / "episodes.jsonl").read_text().splitlines()]
    assert len(episodes) == len(set(episodes))

    third = client.submit_job(entrypoint=" ".join(job), runtime_env={"working_dir": str(ROOT)})
    assert head.ended(third)["driver_exit_code"] == 0
    assert "run point-1 is finished" in head.logs(third)
    assert curve(output) == points


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The job's arguments but for its budget."""
    folder = tmp_path_factory.mktemp("ppo")
    return [
        "--preset", "tiny", "--recipe", "tiny", "--tasks", "0", "--max-steps", "64", "--num-runners", "1",
        "--simulators", "1", "--fragment-decisions", "8", "--cloning-episodes", "2", "--cloning-minutes", "0.05",
        "--run-id", "libero-1", "--output", f"{folder}/run", "--tracking-uri", f"sqlite:///{folder}/mlflow.db",
    ]  # fmt: skip


def output_of(words: list[str]) -> Path:
    return Path(words[words.index("--output") + 1])


def curve(output: Path) -> list[dict[str, float]]:
    path = output / "curve.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.long
@pytest.mark.libero
def test_a_submitted_job_clones_first_and_then_learns_in_libero(head: Head, words: list[str]) -> None:
    done = head.submit("python", "jobs/ppo_libero.py", *words, "--updates", "2", options=["--working-dir", "."])
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
@pytest.mark.long
def test_a_script_with_the_jobs_run_id_goes_on_and_then_the_job_is_finished(head: Head, words: list[str]) -> None:
    output = output_of(words)
    before = curve(output)
    # A cluster that a job starts for itself offers what its actors are told to ask for.
    environment = {**os.environ, "RAY_ADDRESS": "local", "AVAVLA_SIMULATORS_ON": "simulator"}
    done = subprocess.run(
        [str(ROOT / "jobs/ppo_libero.py"), *words, "--updates", "3"],
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

    again = head.submit("python", "jobs/ppo_libero.py", *words, "--updates", "3", options=["--working-dir", "."])
    assert again.returncode == 0, again.stdout + again.stderr
    assert "run libero-1 is finished" in again.stdout
    assert curve(output) == points
