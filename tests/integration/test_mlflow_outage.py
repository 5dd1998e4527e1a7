"""A real MLflow server that is killed, or hangs, while a run logs to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.send_metrics import send_pending
from avavla_ray.tracking import NOTE, PENDING, find_runs, goes_on_in, noted_run, track
from tests.support.ports import free_port

BIN = Path(sys.executable).parent


class Server:
    """`mlflow server` on an SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(BIN / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{self.folder}/store.db",
                    "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
                    "--port", str(self.port), "--workers", "1",
                ],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            )  # fmt: skip
        end = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return reply.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def signal(self, number: int) -> None:
        """To the server and its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait(20)
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        made.start()
        yield made
    if made.process is not None:
        made.signal(signal.SIGKILL)


def steps_of(server: Server, kind: str) -> list[int]:
    from mlflow.tracking import MlflowClient

    (run,) = find_runs(uri=server.uri, kind=kind)
    history = MlflowClient(tracking_uri=server.uri).get_metric_history(run.info.run_id, "loss")
    assert all(point.value == point.step / 8 for point in history)
    return [point.step for point in history]


def test_a_killed_server_loses_no_point_and_gets_none_twice(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "run"
    (output / "sub").mkdir(parents=True)
    (output / "sub/note.txt").write_text("hello")
    slowest, step = 0.0, 0
    with track("long", kind="killed", uri=server.uri, run_key="r", output=output, params={"a": 1}) as run:

        def log(count: int) -> None:
            nonlocal slowest, step
            for _ in range(count):
                begun = time.monotonic()
                run.log_metrics({"loss": step / 8, "kl": 0.01}, step=step)
                slowest = max(slowest, time.monotonic() - begun)
                step += 1
                time.sleep(0.005)

        log(60)
        server.signal(signal.SIGKILL)  # most likely while it is being told something
        log(150)  # more than are sent at once
        assert run.waiting >= 150
        server.start()
        log(20)
        run.log_file(output / "sub/note.txt")
    assert slowest < 1.0
    assert run.waiting == 0
    assert not (output / PENDING).exists()
    assert steps_of(server, "killed") == list(range(230))
    (found,) = find_runs(uri=server.uri, kind="killed")
    assert found.info.status == "FINISHED"
    assert found.data.params == {"a": "1"}
    assert list((server.folder / "artifacts").rglob("note.txt"))


@pytest.mark.long
def test_a_server_that_hangs_is_not_waited_for_and_gets_the_rest_later(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    with pytest.raises(SystemExit), track("long", kind="hung", uri=server.uri, run_key="r", output=output) as run:
        run.log_metrics({"loss": 0.0}, step=0)
        server.signal(signal.SIGSTOP)
        begun = time.monotonic()
        for step in range(1, 20):
            run.log_metrics({"loss": step / 8}, step=step)
        assert time.monotonic() - begun < 10
        begun = time.monotonic()
        raise SystemExit(1)  # what a job that is told to leave does
    assert time.monotonic() - begun < 15.0
    assert f"python -m avavla_ray.send_metrics {output}" in capsys.readouterr().out

    # Resumed while it still hangs: the same run, though nobody can be asked which that is.
    with track("long", kind="hung", uri=server.uri, run_key="r", output=output, resume=True) as again:
        assert again.run_id == run.run_id
        again.log_metrics({"loss": 20 / 8}, step=20)
        with pytest.raises(InputError, match="a process is sending what waits in"):
            send_pending(output)
    assert "takes nothing" in capsys.readouterr().out
    server.signal(signal.SIGCONT)
    assert send_pending(output) > 0
    assert steps_of(server, "hung") == list(range(21))
    (found,) = find_runs(uri=server.uri, kind="hung")
    assert found.info.status == "FINISHED"
    assert send_pending(output) == 0


def test_another_store_is_refused_on_resume(tmp_path: Path) -> None:
    with track("run", kind="ppo", uri=f"sqlite:///{tmp_path}/a.db", output=tmp_path / "run") as first:
        first.log_metrics({"loss": 1.0}, step=1)
    assert (tmp_path / "run" / NOTE).is_file()
    with (
        pytest.raises(InputError, match="resume it with that --tracking-uri"),
        track("run", kind="ppo", uri=f"sqlite:///{tmp_path}/b.db", output=tmp_path / "run", resume=True),
    ):
        pass


def test_a_store_that_was_restored_elsewhere_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by a new cluster's head, whose address is another."""
    with track("run", kind="ppo", uri=f"sqlite:///{tmp_path}/a.db", output=tmp_path / "run") as first:
        first.log_metrics({"loss": 1.0}, step=1)
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    moved = f"sqlite:///{tmp_path}/b.db"
    for _ in range(2):
        with track("run", kind="ppo", uri=moved, output=tmp_path / "run", resume=True) as again:
            again.log_metrics({"loss": 2.0}, step=2)
            assert again.run_id == first.run_id
    assert capsys.readouterr().out.count("MLflow's store has moved") == 1
    assert noted_run(tmp_path / "run")["uri"] == moved
    (found,) = find_runs(uri=moved, kind="ppo")
    assert (found.info.run_id, found.data.metrics["loss"], found.info.status) == (first.run_id, 2.0, "FINISHED")


def test_a_server_restored_from_an_older_backup_gets_another_run(tmp_path: Path, server: Server) -> None:
    noted = {"uri": "http://192.0.2.9:5000", "run": "0" * 32, "experiment": "1"}
    write_json(tmp_path / "run" / NOTE, noted)
    with track("run", kind="ppo", uri=server.uri, output=tmp_path / "run", resume=True) as run:
        assert run.run_id != noted["run"]
    assert noted_run(tmp_path / "run")["run"] == run.run_id
    absent = f"sqlite:///{tmp_path}/typo.db"
    with pytest.raises(InputError, match="typo.db is not there"):
        goes_on_in(noted, absent, "the run logs")
    assert not (tmp_path / "typo.db").exists()
