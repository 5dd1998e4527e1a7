"""Single files to and from a store: repeated for a bounded time, and compared by size and SHA-256.

pyarrow asks a store a few times itself (`stores.ATTEMPTS`, each given up after `stores.ANSWER_SECONDS` without a byte);
what still fails is tried again here, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import StoreUnreachable, first_line

PAUSES = (0.5, 1.0, 2.0)  # seconds before the second attempt, and so on
CHUNK = 8 << 20  # bytes
# They have no folders, and show a file only when all of it has arrived.
OBJECT_STORES = ("s3", "gcs")

Entry = dict[str, Any]
Result = TypeVar("Result")
Passed = Callable[[int], None]


class Damaged(InputError):
    """What a store gave is not what was published."""


class Interrupted(Exception):
    """Somebody waits for the end of this process: no transfer goes on."""


def _nobody(count: int) -> None:
    """Nobody counts bytes."""


def attempt(place: Place, action: Callable[[], Result], verb: str = "read") -> Result:
    """What `action` returns, tried again while the store does not answer.

    Raises:
        StoreUnreachable: it does not answer, at the last attempt neither. InputError: it refuses, in one line.
        FileNotFoundError: there is no such file.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except FileNotFoundError:
            raise
        except (StoreUnreachable, Damaged):
            if pause is None:
                raise
        except NotADirectoryError as error:
            raise FileNotFoundError(str(place)) from error
        except (OSError, pa.ArrowException) as error:
            said = place.explain(error)
            if isinstance(error, PermissionError) or (said is not None and not isinstance(said, StoreUnreachable)):
                assert said is not None
                raise _of(said, verb) from error
            if pause is None:
                raise said or StoreUnreachable(
                    f"{place} cannot be {verb} ({first_line(error)}): check the address and the network"
                ) from error
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _of(said: InputError, verb: str) -> InputError:
    if verb == "read":
        return said
    return type(said)(str(said).replace("may read", "may write").replace("be read", "be written"))


def read_bytes(place: Place) -> bytes | None:
    """All of a small file; None where there is none. Raises as `attempt`."""

    def read() -> bytes:
        with place.system.open_input_stream(place.path) as stream:
            return stream.read()

    try:
        return attempt(place, read)
    except FileNotFoundError:
        return None


def write_bytes(place: Place, content: bytes) -> None:
    """Write a small file; a reader sees the old one or the new one. Raises as `attempt`."""
    direct = place.system.type_name != "local"  # HDFS and others: as atomic as their own writing is

    def write() -> None:
        _make_room(place)
        target = place.path if direct else f"{place.path}.{uuid.uuid4().hex[:8]}.tmp"
        with place.system.open_output_stream(target) as stream:
            stream.write(content)
        if not direct:
            place.system.move(target, place.path)

    attempt(place, write, "written")


def upload(path: Path, place: Place, size: int, passed: Passed = _nobody) -> Entry:
    """Copy the first `size` bytes of a file into a store, under a name that nobody reads yet.

    Args:
        passed: called with the number of bytes, as they go.

    Returns:
        {"size", "sha256"} of what went there.

    Raises:
        OSError: the local file cannot be read, or is shorter by now. The rest as `attempt`.
    """

    def send() -> Entry:
        digest, left = hashlib.sha256(), size
        with path.open("rb") as source:
            _make_room(place)
            with place.system.open_output_stream(place.path) as target:
                while left:
                    chunk = source.read(min(CHUNK, left))
                    if not chunk:
                        raise _Shorter(path)
                    digest.update(chunk)
                    target.write(chunk)
                    left -= len(chunk)
                    passed(len(chunk))
        return {"size": size, "sha256": digest.hexdigest()}

    try:
        return attempt(place, send, "written")
    except _Shorter as error:
        raise FileNotFoundError(f"{path} became shorter while it was read") from error


class _Shorter(Exception):
    pass


def download(place: Place, path: Path, entry: Entry, passed: Passed = _nobody) -> None:
    """Bring a file from a store: whole, and what it should be, or not at all.

    Args:
        entry: its size, and its SHA-256 where that is known.

    Raises:
        Damaged: it is another. FileNotFoundError: it is not there. InputError: the disk is full. The rest as `attempt`.
    """

    def bring() -> None:
        digest, size = hashlib.sha256(), 0
        with atomic_path(path) as temporary, temporary.open("wb") as target:
            try:
                source = place.system.open_input_stream(place.path)
            except FileNotFoundError as error:
                raise _Gone from error
            except (OSError, pa.ArrowException) as error:
                raise _Failed(error) from error
            with source:
                while True:
                    try:
                        chunk = source.read(CHUNK)
                    except (OSError, pa.ArrowException) as error:
                        raise _Failed(error) from error
                    if not chunk:
                        break
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                    passed(len(chunk))
            if size != entry["size"] or digest.hexdigest() != entry.get("sha256", digest.hexdigest()):
                raise Damaged(f"{place} is not what was published ({size} of {entry['size']} bytes): publish it again")

    def translated() -> None:
        # A store's error must not be taken for one of the local disk.
        try:
            bring()
        except _Failed as failed:
            raise failed.error from failed

    try:
        attempt(place, translated)
    except _Gone as error:
        raise FileNotFoundError(str(place)) from error


class _Gone(Exception):
    pass


class _Failed(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def listing(place: Place) -> dict[str, int]:
    """Sizes of all files below a folder, by their names from there; empty where there is no such folder."""
    return {name: entry["size"] for name, entry in details(place).items()}


def details(place: Place) -> dict[str, Entry]:
    """The same with the times of their last changes, in ns, which tell new content of the same size."""

    def ask() -> dict[str, Entry]:
        found = place.system.get_file_info(fs.FileSelector(place.path, recursive=True, allow_not_found=True))
        start = len(place.path.rstrip("/")) + 1
        return {each.path[start:]: {"size": each.size, "changed": each.mtime_ns} for each in found if each.is_file}

    return attempt(place, ask)


def remove(place: Place, *, folder: bool = False) -> None:
    """Remove a file or a folder; one that is gone already is fine. Raises as `attempt`."""

    def act() -> None:
        with contextlib.suppress(FileNotFoundError):
            (place.system.delete_dir if folder else place.system.delete_file)(place.path)

    attempt(place, act, "written")


def _make_room(place: Place) -> None:
    """The folder that a file goes into, where there are folders."""
    if place.system.type_name not in OBJECT_STORES:
        place.system.create_dir(place.path.rpartition("/")[0], recursive=True)
