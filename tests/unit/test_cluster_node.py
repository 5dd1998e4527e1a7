"""cluster/node.sh: what it makes of settings and commands.

`ray` and `nvidia-smi` are stand-ins that stand for a machine which this one is not: the first prints with what it was
called, the second lists a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = "import json, os, sys; print(json.dumps({'arguments': sys.argv[1:], 'environment': dict(os.environ)}))"


class Machine:
    """A home with a set-up project in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.project = home, home / "avavla"
        shutil.copytree(ROOT / "cluster", self.project / "cluster")
        self.script(self.project / ".venv/bin/ray", f'exec "{sys.executable}" -c "{SHOW}" "$@"')
        self.script(home / "bin/nvidia-smi", "exit 9")
        self.write("~/.ray/auth_token", "0123abcd")
        self.write("~/avavla.env", "# of the cluster\nAVAVLA_STORE=s3://robots\n")

    def script(self, path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        file = self.home / path.removeprefix("~/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.home}/bin:{os.environ['PATH']}"
        given = {"HOME": str(self.home), "PATH": path, "OMP_NUM_THREADS": "1", **environment}  # as Ray sets it
        command = ["bash", str(self.project / "cluster/node.sh"), *arguments]
        return subprocess.run(command, env=given, text=True, capture_output=True, timeout=60)

    def worker(self, **environment: str) -> tuple[list[str], dict[str, str]]:
        """What `ray` was given."""
        done = self.run("worker", "ray", "start", "--address=10.0.0.1:6379", **environment)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        return said["arguments"], said["environment"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


START = ["start", "--address=10.0.0.1:6379"]


def test_a_machine_of_a_cloud_offers_what_the_cluster_file_says(machine):
    arguments, environment = machine.worker(RAY_OVERRIDE_RESOURCES='{"CPU":32,"simulator":32}')
    assert arguments == START
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["PATH"].startswith(f"{machine.project}/.venv/bin:")
    assert environment["AVAVLA_STORE"] == "s3://robots"
    assert "LIBERO_ASSETS_PATH" not in environment
    # Where simulators may go is for drivers, and they are on the head.
    assert "AVAVLA_SIMULATORS_ON" not in environment
    assert (machine.home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_ones_own_machine_offers_a_simulator_for_each_cpu_or_learners_where_it_has_a_gpu(machine):
    cpus = len(os.sched_getaffinity(0))
    assert machine.worker()[0] == [*START, f'--resources={{"simulator": {cpus}}}', "--labels=kind=simulator"]
    machine.script(machine.home / "bin/nvidia-smi", "echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'")
    assert machine.worker()[0] == [*START, '--resources={"learner": 1}', "--labels=kind=learner"]
    machine.write("~/avavla_machine.env", "AVAVLA_KIND=both\nRAY_START_OPTIONS=--num-cpus 3\n")
    both = f'--resources={{"simulator": {cpus}, "learner": 1}}'
    assert machine.worker()[0] == [*START, both, "--labels=kind=both", "--num-cpus", "3"]


def test_a_machines_own_settings_win_over_the_clusters_and_the_environment_over_both(machine):
    machine.write("~/avavla_machine.env", "AVAVLA_STORE=/mine with a space=and more\n")
    assert machine.worker()[1]["AVAVLA_STORE"] == "/mine with a space=and more"
    assert machine.worker(AVAVLA_STORE="/other")[1]["AVAVLA_STORE"] == "/other"


def test_settings_are_text(machine):
    machine.write("~/avavla.env", f"AVAVLA_STORE=$(touch {machine.home}/ran)\nLAST=without a line's end")
    environment = machine.worker()[1]
    assert environment["AVAVLA_STORE"].startswith("$(touch")
    assert environment["LAST"] == "without a line's end"
    assert not (machine.home / "ran").exists()


def test_copied_geometry_is_handed_on(machine):
    machine.write("~/libero-assets/.copied-from", "s3://robots/assets")
    assert machine.worker()[1]["LIBERO_ASSETS_PATH"] == str(machine.home / "libero-assets")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ("worker ray start", "AVAVLA_STORE=s3://CHANGE-ME", "still s3://CHANGE-ME: name your own place"),
        ("worker ray start", "AVAVLA_KIND=gpu", "AVAVLA_KIND=gpu: give simulator, learner or both"),
        ("worker ray start", "export AVAVLA_KIND=both", "avavla.env this is not NAME=VALUE: export AVAVLA_KIND=both"),
        ("worker", "", "worker: give the 'ray start' to run"),
        ("head ray start", "", "AVAVLA_STORE is not set"),
        ("star", "", "give install, head, worker or stop"),
        ("", "", "give install, head, worker or stop"),
    ],
)
def test_what_is_missing_is_named(machine, arguments, settings, message):
    machine.write("~/avavla.env", settings)
    done = machine.run(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lost", "message"), [(".ray/auth_token", "ray get-auth-token --generate"), ("avavla/.venv/bin/ray", "install")]
)
def test_a_machine_that_is_not_ready_says_what_makes_it_so(machine, lost, message):
    (machine.home / lost).unlink()
    done = machine.run("worker", "ray", "start")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_head_does_not_serve_the_runs_of_another_store(machine):
    (machine.project / ".venv/bin/python").unlink(missing_ok=True)
    machine.script(machine.project / ".venv/bin/python", "exit 0")  # the server's, and whoever waits for it
    environment = {"AVAVLA_HEAD_ADDRESS": "10.0.0.1"}
    assert machine.run("head", "ray", "start", AVAVLA_STORE="s3://robots/", **environment).returncode == 0
    machine.write("~/mlflow/mlflow.db", "")
    assert machine.run("head", "ray", "start", AVAVLA_STORE="s3://robots", **environment).returncode == 0
    done = machine.run("head", "ray", "start", AVAVLA_STORE="s3://others", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "mlflow has the runs of s3://robots, not of s3://others" in done.stderr
    assert (machine.home / "mlflow/store").read_text() == "s3://robots\n"


def test_set_up_takes_a_build_of_torch_for_what_the_machine_has(machine):
    """What set-up itself does is not repeated here: five minutes and 3.5 GB."""
    machine.script(
        machine.project / "cluster/setup.sh", 'echo "$EXTRAS ${NO_BROWSER:-} ${TORCH_INDEX_URL:-default} ${1##*/}"'
    )
    # What Debian calls installed is all there.
    machine.script(
        machine.home / "bin/dpkg-query",
        'for p in python3-venv python3-dev g++ rsync libegl1 libgl1 libgl1-mesa-dri; do echo "installed $p, "; done\n'
        'echo "installed libglib2.0-0t64, libglib2.0-0 (= 2.80.0)"',
    )
    done = machine.run("install")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["libero,cluster", "1", "https://download.pytorch.org/whl/cpu", ".venv"]
    machine.script(machine.home / "bin/nvidia-smi", "echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'")
    machine.script(machine.project / ".venv/bin/python", "exit 0")  # says that torch sees the GPU
    assert "default" in machine.run("install").stdout
    machine.script(machine.project / ".venv/bin/python", "exit 1")
    done = machine.run("install")
    assert done.returncode == 2
    assert "torch sees no GPU behind this driver" in done.stderr
    assert machine.run("install", AVAVLA_KIND="simulator").returncode == 0
    profile = (machine.home / ".bashrc").read_text()
    assert profile == f"export PATH={machine.project}/.venv/bin:$PATH RAY_AUTH_MODE=token\n"
    machine.script(
        machine.home / "bin/dpkg-query", 'echo "installed libegl1-mesa, "; echo "config-files rsync, "; echo "half x, "'
    )
    machine.script(machine.home / "bin/apt-get", "exit 100")
    machine.script(machine.home / "bin/sudo", 'shift; exec "$@"')
    done = machine.run("install")
    assert done.returncode == 2
    assert "could not install python3-venv python3-dev g++ rsync libegl1 libgl1 libgl1-mesa-dri" in done.stderr


def test_geometry_is_copied_once_from_where_the_settings_say(machine, tmp_path):
    source = tmp_path / "store/libero"
    (source / "scenes").mkdir(parents=True)
    (source / "scenes/floor.xml").write_text("<mujoco/>")
    machine.script(machine.project / "cluster/setup.sh", ":")
    (machine.project / ".venv/bin/python").symlink_to(sys.executable)
    machine.write("~/avavla.env", f"LIBERO_ASSETS={source.as_uri()}\n")
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    packages = "python3-venv, python3-dev, g++, rsync, libegl1, libgl1, libgl1-mesa-dri, libglib2.0-0"
    machine.script(machine.home / "bin/dpkg-query", f"echo 'installed x, {packages}'")
    for _ in range(2):
        done = machine.run("install", **environment)
        assert done.returncode == 0, done.stderr
        assert (machine.home / "libero-assets/scenes/floor.xml").read_text() == "<mujoco/>"
        shutil.rmtree(source, ignore_errors=True)
    machine.write("~/avavla.env", f"LIBERO_ASSETS={source.as_uri()}/other\n")
    done = machine.run("install", **environment)
    assert done.returncode == 2
    assert "could not be copied" in done.stderr
    assert not (machine.home / "libero-assets/.copied-from").exists()
