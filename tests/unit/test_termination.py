"""Notices that a machine is about to be taken away: AWS and Google Cloud as they answer, and a file."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.termination import TerminationWatch, check_source
from avavla_ray.errors import InputError

TERMINATED = '{"action": "terminate", "time": "2026-11-22T15:02:00Z"}'


class Metadata(http.server.ThreadingHTTPServer):
    """Both clouds' metadata services, refusing what they refuse."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.going, self.notice = False, TERMINATED
        self.token, self.tokens, self.looks = "", 0, 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answering(http.server.BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert 1 <= int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
        self.server.tokens += 1
        self.server.token = f"token {self.server.tokens}"
        self.say(200, self.server.token)

    def do_GET(self) -> None:
        self.server.looks += 1
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != self.server.token:
                self.say(401, "")
            elif self.server.going:
                self.say(200, self.server.notice)
            else:
                self.say(404, "")
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            self.say(200, "TRUE" if self.server.going else "FALSE")
        else:
            self.say(403, "")

    def say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    server = Metadata()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{server.place}/")
    monkeypatch.setenv("GCE_METADATA_HOST", server.place)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is there, and it must not be asked
    yield server
    server.shutdown()
    server.server_close()


def wait_until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("aws", "AWS will terminate this instance at 2026-11-22T15:02:00Z"),
        ("gcp", "Google Cloud preempts this instance"),
    ],
)
def test_a_cloud_says_nothing_until_it_does(source: str, told: str, metadata: Metadata) -> None:
    watch = TerminationWatch(source, every_s=0.01)
    wait_until(lambda: metadata.looks >= 3)
    assert watch.notice is None
    metadata.going = True
    wait_until(lambda: watch.notice is not None)
    assert watch.notice == told


def test_an_expired_token_is_replaced(metadata: Metadata) -> None:
    watch = TerminationWatch("aws", every_s=0.01)
    wait_until(lambda: metadata.looks >= 2)
    metadata.token = "another"
    wait_until(lambda: metadata.tokens == 2)
    metadata.going = True
    wait_until(lambda: watch.notice is not None)


def test_a_service_that_is_not_there_is_told_of_once_and_asked_again(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = metadata.place
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    metadata.going = True
    watch = TerminationWatch("gcp", every_s=0.01)
    time.sleep(0.2)
    assert watch.notice is None
    monkeypatch.setenv("GCE_METADATA_HOST", place)
    wait_until(lambda: watch.notice is not None)
    assert capfd.readouterr().out.count("no termination notice can be had") == 1


@pytest.mark.parametrize("notice", ["{}", "[]", "<html>"])
def test_an_answer_that_is_no_notice_does_not_end_the_watch(notice: str, metadata: Metadata) -> None:
    metadata.going, metadata.notice = True, notice
    watch = TerminationWatch("aws", every_s=0.01)
    wait_until(lambda: metadata.looks >= 3)
    assert watch.notice is None
    metadata.notice = TERMINATED
    wait_until(lambda: watch.notice is not None)


def test_a_file_appears(tmp_path: Path) -> None:
    place = tmp_path / "leaving"
    watch = TerminationWatch(f"file:{place}", every_s=0.01)
    time.sleep(0.1)
    assert watch.notice is None
    place.touch()
    wait_until(lambda: watch.notice is not None)
    assert watch.notice == f"{place} has appeared"


def test_one_that_is_stopped_looks_no_more(tmp_path: Path) -> None:
    place = tmp_path / "leaving"
    watch = TerminationWatch(f"file:{place}", every_s=0.01)
    watch.stop()
    time.sleep(0.1)
    place.touch()
    time.sleep(0.1)
    assert watch.notice is None
    assert TerminationWatch("off").notice is None


@pytest.mark.parametrize("source", ["azure", "file:", "", "File:/x"])
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="give off, aws, gcp or file:PATH"):
        check_source(source)
