"""What a struck run stands on: nodes of a Ray cluster, an MLflow server, and the driver's process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.chaos_run.driver import Plan
from benchmarks.chaos_run.processes import Family

ROOT = Path(__file__).resolve().parents[2]
# A raylet that does not answer for 5 s is given up, as a slow one is not; Ray's default is 15.
PATIENCE = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}


def environment() -> dict[str, str]:
    """Of all processes of a run, which this process's own has to be before the cluster starts."""
    from actors.cluster import PROCESS_ENVIRONMENT

    return {
        **PROCESS_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "disabled", "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0",
        # A store that is not there is not waited for; what it does not take is sent later.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }  # fmt: skip


class Nodes:
    """A head, where the driver, learners and policy servers are, and nodes with room for a runner each."""

    def __init__(self, runners: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 8, "include_dashboard": False, "_system_config": PATIENCE},
        )  # fmt: skip
        self.nodes: list[Any] = [self._add() for _ in range(runners)]

    def _add(self) -> Any:
        return self.cluster.add_node(num_cpus=0, resources={"simulator": 1})

    def raylet(self, index: int) -> int:
        return int(self.nodes[index].all_processes["raylet"][0].process.pid)

    def lose(self, index: int) -> None:
        """A node, with all that runs there, at once."""
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def replace(self) -> None:
        self.nodes.append(self._add())

    def close(self) -> None:
        self.cluster.shutdown()


class Store:
    """An MLflow server on an SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "mlflow.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "mlflow"), "server", "--backend-store-uri",
                    f"sqlite:///{self.folder}/store.db", "--artifacts-destination", str(self.folder / "artifacts"),
                    "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > end:
                raise TimeoutError(f"the MLflow server does not answer: see {self.folder / 'mlflow.log'}")
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def signal(self, number: int) -> None:
        """To the server and its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None


class Driver:
    """The process of the driver, one start after the other."""

    def __init__(self, plan: Plan, folder: Path, address: str) -> None:
        self.file, self.log = plan.write(folder / "plan.json"), folder / "driver.log"
        self._environment = {**os.environ, "RAY_ADDRESS": address}
        self.process = self._start()

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.chaos_run.driver", str(self.file), *more]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def resume(self) -> None:
        self.process = self._start("--resume")

    def check(self) -> None:
        """Raise RuntimeError when it has ended otherwise than well."""
        if self.process.poll() not in (None, 0):
            raise RuntimeError(f"the driver ended with status {self.process.returncode}: see {self.log}")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


def end_all(before: frozenset[int]) -> None:
    """Kill what is left of this process's descendants but those of `before`."""
    for pid in Family().members - before:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
