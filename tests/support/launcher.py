"""Whoever types `ray up`, and the machines that stand in for those of a cloud."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray

from tests.support.ports import free_port
from tests.support.stand_in_machines import Machines

ROOT = Path(__file__).resolve().parents[2]


class Launcher:
    """Whoever types `ray up`, in the project's folder, and the machines that it reaches.

    Args:
        folder: of this cluster, with a short path; everything lies in it.
        person, machine: environment of each, credentials for instance.
        others: lines of ~/avavla_machine.env of all machines but the head.
    """

    def __init__(
        self, folder: Path, person: dict[str, str], machine: dict[str, str], others: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.home = folder, folder / "person"
        self.ports = {name: free_port() for name in ("ray", "dashboard", "agent", "client", "mlflow")}
        common = {"RAY_TMPDIR": str(folder), "RAY_prestart_worker_first_driver": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        head = [
            f"RAY_START_OPTIONS=--port={self.ports['ray']} --dashboard-port={self.ports['dashboard']} "
            f"--ray-client-server-port={self.ports['client']} --dashboard-agent-listen-port={self.ports['agent']}",
            f"MLFLOW_PORT={self.ports['mlflow']}",
        ]
        self.address = ray.util.get_node_ip_address()
        to = f"--address={self.address}:{self.ports['ray']}"
        worker = [f"RAY_START_OPTIONS={to} --dashboard-agent-listen-port=0", *others]
        self.machines = Machines(folder / "c", {**machine, **common}, head, worker)
        (self.home / ".ray").mkdir(parents=True)
        (self.home / ".ray/auth_token").write_text(secrets.token_hex(32))
        self.environment = {
            **person, **common, "HOME": str(self.home), "RAY_TMPDIR": str(folder / "p"), "TMPDIR": str(self.home),
            "RAY_AUTH_MODE": "token", "LANG": "C.UTF-8",
            "PATH": f"{self.machines.folder}/bin:{Path(sys.executable).parent}:/usr/bin:/bin",
        }  # fmt: skip

    def types(self, *command: str, seconds: float = 300, **environment: str) -> str:
        """What the command said. Fails with all that was sent to machines when it does."""
        done = subprocess.run(
            command, cwd=ROOT, env={**self.environment, **environment}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def submits(self, folder: Path, seconds: float = 420) -> str:
        """What the job said, when it has ended: job.py of the folder."""
        address = f"http://127.0.0.1:{self.ports['dashboard']}"
        return self.types(
            "ray", "job", "submit", "--address", address, "--working-dir", str(folder), "--", "python", "job.py",
            seconds=seconds,
        )  # fmt: skip

    def story(self) -> str:
        """For a test that fails: what was sent, and what autoscaler and MLflow said."""
        logs = sorted([*self.folder.glob("ray/session_latest/logs/monitor*"), *self.folder.glob("c/m/*/mlflow/*.log")])
        told = [f"--- {log}\n{log.read_text()[-6000:]}" for log in logs]
        return "\n".join([json.dumps(self.machines.sent(), indent=1)[-6000:], *told])


@contextlib.contextmanager
def launcher(**given) -> Iterator[Launcher]:
    folder = Path(tempfile.mkdtemp(prefix="up", dir="/tmp"))
    made = Launcher(folder, **given)
    try:
        yield made
    except BaseException:
        print(made.story())
        raise
    finally:
        made.machines.end()
        shutil.rmtree(folder, ignore_errors=True)
