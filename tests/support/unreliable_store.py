"""An S3 store that can fail: moto's server, and a proxy before it that answers wrongly, slowly, or half."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "hushhush"}
BUCKET = "robots"
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"

# Of a request (its number, method and path): what is done to it. None: nothing. "500" and "503": answered so. "cut":
# the connection ends in the middle of its body, or of its answer. "lost": it is carried out, its answer never comes. A
# number: seconds to wait before the answer.
Faults = Callable[[int, str, str], "str | float | None"]


def use_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give this process these keys, and none from anywhere else."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class Proxy:
    """HOST:PORT that hands requests on to the store at another, with faults.

    Attributes:
        faults: what is done to requests, may be changed at any time. asked: (method, path) of all requests.
    """

    def __init__(self, target: str) -> None:
        self.target, self.faults = target, _none
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def fault(self, method: str, path: str) -> str | float | None:
        with self._lock:
            self.asked.append((method, path))
            number = len(self.asked)
        return self.faults(number, method, path)

    def uri(self, path: str) -> str:
        """Of something in the bucket."""
        return f"s3://{BUCKET}/{path}?endpoint_override={self.address}&scheme=http"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _none(number: int, method: str, path: str) -> None:
    return None


class _Handler(BaseHTTPRequestHandler):
    owner: Any = None
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        fault = self.owner.fault(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut" and self.command in ("PUT", "POST"):
            self.rfile.read(min(length, 1000) // 2)
            return self._break_off()
        body = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        if fault in ("500", "503"):
            return self._answer(int(fault), {"Content-Type": "application/xml"}, _BUSY if fault == "503" else _BROKEN)
        if isinstance(fault, float):
            time.sleep(fault)
        status, headers, content = self._forward(body)
        if fault == "lost":
            return self._break_off()
        if fault == "cut":
            self._head(status, headers, len(content))
            self.wfile.write(content[: len(content) // 2])
            return self._break_off()
        return self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.owner.target, timeout=60)
        skipped = ("transfer-encoding", "content-length", "connection", "expect")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        told = {name: value for name, value in answer.getheaders() if name.lower() not in (*skipped, "date", "server")}
        if self.command == "HEAD":
            told["Content-Length"] = answer.getheader("Content-Length") or "0"
        connection.close()
        return answer.status, told, content

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self._head(status, headers, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _break_off(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(2)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the other side has gone
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def s3_store() -> Iterator[str]:
    """HOST:PORT of moto's server with an empty bucket."""
    boto3, server_module = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "{}:{}".format(*server.get_host_and_port())
    boto3.client(
        "s3", endpoint_url=f"http://{address}", region_name="us-east-1",
        aws_access_key_id="anyone", aws_secret_access_key="hushhush",
    ).create_bucket(Bucket=BUCKET)  # fmt: skip
    try:
        yield address
    finally:
        server.stop()
