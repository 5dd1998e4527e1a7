"""Folders, and stores of files that break off."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avavla_ray.storage import transfers
from avavla_ray.storage.fetching import fetch
from avavla_ray.storage.notes import Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.publisher import Publisher


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Ends the process at one of its calls of the store, before the call or after it; counts them all.

    Args:
        at: number of the call, from 1; None never.
    """

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.at, self.after, self.calls = at, after, 0
        self._attempt, self._lock = transfers.attempt, threading.Lock()

    def __enter__(self) -> Killer:
        transfers.attempt = self._watched
        return self

    def __exit__(self, *_: object) -> None:
        transfers.attempt = self._attempt

    def _watched(self, place: Place, action: Callable[[], Any], verb: str = "read") -> Any:
        with self._lock:  # one after the other, as a process that is dead does nothing more
            self.calls += 1
            reached = self.at is not None and self.calls >= self.at
            if reached and (not self.after or self.calls > (self.at or 0)):
                raise Killed
            answer = self._attempt(place, action, verb)
            if reached:
                raise Killed
            return answer


def fill(folder: Path, content: dict[str, bytes]) -> None:
    """Make a folder hold just these files, each replaced by a rename as our own are."""
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != data:
            path.with_name(f".{path.name}.1.tmp").write_bytes(data)
            path.with_name(f".{path.name}.1.tmp").rename(path)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in content:
            path.unlink()


def held(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publisher(folder: Path, root: Place, notes: Path | None = None) -> Publisher:
    """What a new process would have."""
    return Publisher(folder, root, Notes(notes or folder.with_suffix(".json")))


def fetched(root: Place, into: Path) -> dict[str, bytes]:
    """What a reader gets."""
    fetch(root, into, exact=True)
    return held(into)


def stored(folder: Path) -> set[str]:
    """Files of a store that is a local folder, without the manifest."""
    return set(held(folder)) - {"manifest.json"}
