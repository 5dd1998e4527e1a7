"""A Ray head of a test's own, as `ray start --head` starts it, and jobs that are submitted to it over HTTP."""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.files import cache_folder

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Head:
    """`address`: of its dashboard. `environment`: for whoever talks to it."""

    address: str
    environment: dict[str, str]

    def ray(self, *words: str, cwd: Path = ROOT, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Ray's command line, as a user types it."""
        return subprocess.run(
            [str(BIN / "ray"), *words], cwd=cwd, env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def submit(self, *words: str, options: Sequence[str] = (), cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """`ray job submit` from a folder."""
        return self.ray("job", "submit", "--address", self.address, *options, "--", *words, cwd=cwd)

    def ask(self, path: str) -> Any:
        """What its HTTP interface answers."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=10) as reply:
            return json.loads(reply.read())

    def job(self, name: str) -> dict[str, Any]:
        """A job's status, message and the driver's own exit code, of its submission id."""
        return self.ask(f"/api/jobs/{name}")

    def logs(self, name: str) -> str:
        return self.ask(f"/api/jobs/{name}/logs")["logs"]

    def ended(self, name: str, patience_s: float = 120.0) -> dict[str, Any]:
        """The same once the job has ended."""
        end = time.monotonic() + patience_s
        while (job := self.job(name))["status"] not in ENDED:
            assert time.monotonic() < end, self.logs(name)
            time.sleep(0.1)
        return job


@contextlib.contextmanager
def started_head(*, cpus: int, **variables: str) -> Iterator[Head]:
    """A head, and only that, until the block ends.

    Args:
        variables: environment of the head, which it hands on to every job.
    """
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
            str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", f"--num-cpus={cpus}",
            f"--temp-dir={folder}/t", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}",
            f"--ray-client-server-port={client}",
        ],
        env={**environment, **variables}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{dashboard}", time.monotonic() + 90
    try:
        # Jobs are accepted by the dashboard and started by its agent.
        while not (answers(f"{address}/api/version") and answers(f"http://127.0.0.1:{agent}/api/local_raylet_healthz")):
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < end, "the head's dashboard and its agent do not answer"
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


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
