"""Files that are either whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avavla_ray.errors import DiskFull, InputError


def _explain(error: OSError, path: Path) -> InputError:
    number, reason = error.errno, error.strerror or str(error)
    if isinstance(error, shutil.Error):  # copytree's list of (from, to, words), without a number
        reason = str(error.args[0][0][-1])
        told = re.match(r"\[Errno (\d+)\]", reason)
        number = int(told[1]) if told else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the disk that holds {path}: free some and repeat")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{path} cannot be written: make it writable or choose another folder")
    return InputError(f"{path} cannot be written: {reason}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed and renamed to `path`.

    The caller creates a file or a folder there. On an exception the temporary is removed and `path` keeps what it
    held. A folder replaces an existing folder; a process that is killed just then may leave the old one under a hidden
    name only, from which `remove_temporaries` brings it back.

    Raises:
        InputError: the place cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for member in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(member)
        if temporary.is_dir() and path.is_dir():
            retired = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
            os.rename(path, retired)
            try:
                os.rename(temporary, path)
            except OSError:
                os.rename(retired, path)
                raise
            shutil.rmtree(retired)
        else:
            os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def remove_temporaries(folder: str | Path) -> None:
    """Remove what `atomic_path` left in `folder` when its process was killed; a folder that it was about to replace
    then comes back."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for retired in Path(folder).glob(".*.old"):
        whole = retired.with_name(retired.name.removeprefix(".").rsplit(".", 2)[0])
        if whole.exists():
            shutil.rmtree(retired)
        else:
            retired.rename(whole)


def check_space(path: str | Path, needed: int) -> None:
    """Raise InputError when the disk that `path` will be on has fewer free bytes than `needed`."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{path} needs {needed / 1e9:.1f} GB, its disk has {free / 1e9:.1f} GB left: free some or choose another"
        )


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; keys keep their order, NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file and flush it to disk; a process that is killed meanwhile leaves at most a torn last line.

    Raises:
        InputError: the file cannot be written, or the disk is full.
    """
    append_lines(path, [line])


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """`append_line` for several, flushed once; where that fails, the file is what it was.

    Raises:
        InputError: the file cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            content = memoryview("".join(f"{line}\n" for line in lines).encode())
            try:
                while content:
                    content = content[stream.write(content) :]
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(before)
                raise
    except OSError as error:
        raise _explain(error, path) from error


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as manifests list them."""
    return {"size": Path(path).stat().st_size, "sha256": sha256(path)}


def damage(path: Path, entry: dict[str, Any], content: bool = True) -> str | None:
    """What is wrong with a file that should have this `fingerprint`; None if nothing is.

    Args:
        content: compare the hash too, which reads the whole file.
    """
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != entry["size"]:
        return f"{path.name} has {size} bytes instead of {entry['size']}"
    if content and sha256(path) != entry["sha256"]:
        return f"{path.name} was altered after it was written"
    return None


def cache_folder() -> Path:
    """Where generated data (assets, reduced meshes) are kept: AVAVLA_CACHE or ~/.cache/avavla_ray."""
    return Path(os.environ.get("AVAVLA_CACHE", Path.home() / ".cache" / "avavla_ray"))
