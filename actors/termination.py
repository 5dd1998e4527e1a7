"""Notices that a machine is about to be taken away, as clouds give them for spot and preemptible machines.

AWS and Google Cloud answer over HTTP on addresses that only the machine itself reaches. On Kubernetes a container's
preStop hook touches a file instead, and waits until all who look at that file have handed in (actors/hand_in.py).
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from avavla_ray.errors import InputError

SOURCES = "off, aws, gcp or file:PATH"
TIMEOUT_S = 2.0
TOKEN_S = 21600  # the longest that AWS gives one for

# Metadata services are on the machine itself: whatever proxy the environment names does not reach them.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class TerminationWatch:
    """Looks for a notice in a thread of its own until there is one.

    Args:
        source: "off"; "aws" (instance metadata service, version 2; AWS_EC2_METADATA_SERVICE_ENDPOINT moves it); "gcp"
            (GCE_METADATA_HOST moves it); "file:PATH", a file that appears.
        every_s: between two looks. Both clouds ask for no more than seconds, and AWS gives two minutes' notice, Google
            half a minute.

    With a file, its marks folder says from now on that this process has something to hand in; see `Mark`.

    Attributes:
        notice: why the machine will be taken away; None until it is told.

    Raises:
        InputError: no such source, or no mark can be made.
    """

    def __init__(self, source: str, *, every_s: float = 2.0) -> None:
        self.notice: str | None = None
        self._look = _looker(source)
        self._stop = threading.Event()
        self._every_s = every_s
        kind, _, path = source.partition(":")
        self._mark = Mark(Path(path)) if kind == "file" else None
        if self._look is not None:
            threading.Thread(target=self._watch, name="termination", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        self.handed_in()

    def handed_in(self) -> None:
        """Nothing of this process has to be waited for any more."""
        if self._mark is not None:
            self._mark.clear()

    def _watch(self) -> None:
        assert self._look is not None
        told = False
        while not self._stop.is_set():
            try:
                self.notice = self._look()
                told = False
            except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
                if not told:  # once, not at every look
                    print(f"no termination notice can be had ({error}); asked for again and again", flush=True)
                told = True
            if self.notice is not None:
                print(f"termination notice: {self.notice}", flush=True)
                return
            self._stop.wait(self._every_s)


class Mark:
    """Says that a process on this machine still has something to hand in when the file `notice` appears.

    It is a lock on a file of the process's own, so that it ends with the process at the latest, however that ends.
    Processes that are forked from it do not inherit the lock.

    Raises:
        InputError: its folder can't be written.
    """

    def __init__(self, notice: Path) -> None:
        self._place = marks(notice) / str(os.getpid())
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._place.open("w")
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{self._place} can't be written ({error}): give file:PATH in a folder that can") from None

    def clear(self) -> None:
        if not self._file.closed:
            self._place.unlink(missing_ok=True)
            self._file.close()


def marks(notice: Path) -> Path:
    """Folder of the marks of those who look at this file."""
    return notice.with_name(f"{notice.name}.marks")


def waiting(notice: Path) -> list[str]:
    """Processes that still have something to hand in, by their ids. For another process than those that hold marks."""
    held = []
    for place in sorted(marks(notice).glob("*")):
        try:
            with place.open("r+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except OSError:  # another process holds it
            held.append(place.name)
    return held


def check_source(source: str) -> None:
    """Raises InputError where `source` is none that a `TerminationWatch` takes."""
    _looker(source)


def _looker(source: str) -> Callable[[], str | None] | None:
    if source == "off":
        return None
    if source == "aws":
        return _Aws()
    if source == "gcp":
        return _gcp
    kind, _, path = source.partition(":")
    if kind == "file" and path:
        return lambda: f"{path} has appeared" if Path(path).exists() else None
    raise InputError(f"termination notices from {source!r}: give {SOURCES}")


class _Aws:
    """The interruption notice of a spot instance, with a session token that is asked for anew when it has run out."""

    def __init__(self) -> None:
        self._base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
        self._token: str | None = None

    def __call__(self) -> str | None:
        if self._token is None:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            self._token = _fetch(f"{self._base}/latest/api/token", lifetime, method="PUT")
        try:
            text = _fetch(
                f"{self._base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token}
            )
        except urllib.error.HTTPError as error:
            if error.code == 404:  # nothing is planned
                return None
            if error.code == 401:
                self._token = None
            raise
        said = json.loads(text)
        return f"AWS will {said['action']} this instance at {said['time']}"


def _gcp() -> str | None:
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    said = _fetch(f"http://{host}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return "Google Cloud preempts this instance" if said.strip() == "TRUE" else None


def _fetch(url: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    with _open(request, timeout=TIMEOUT_S) as response:
        return response.read().decode()
