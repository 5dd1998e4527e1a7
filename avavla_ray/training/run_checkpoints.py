"""The checkpoints of a run: each whole or absent; the newest few and the best are kept.

    FOLDER/step-000000123/      what training wrote, in whatever files
      manifest.json             step, score, facts, and size and SHA-256 of the other files; written last
    FOLDER/step-000000123-1/    the same step, written again
    FOLDER/damaged-*/           checkpoints that are no longer what was written, set aside
    FOLDER/.*.tmp               left by a killed writer, or being removed; the next writer removes them

At any instant a reader finds only whole checkpoints under their names: they are filled elsewhere, flushed to disk and
renamed, and renamed again before they are removed. One process writes at a time: the one that holds the `RunLock`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from avavla_ray.errors import DiskFull, InputError
from avavla_ray.files import atomic_path, damage, fingerprint, remove_temporaries, write_json

FORMAT, VERSION, MANIFEST = "avavla_ray.run_checkpoint", 1, "manifest.json"
_NAME = re.compile(r"step-(\d{9,})(?:-(\d+))?")
_FULL = 1 << 20  # bytes; a disk with less free space is full


class StoredCheckpoint(NamedTuple):
    """A whole checkpoint.

    path: its folder. step: optimizer steps before it. score: lower is better, None without one. facts, stage: as given.
    """

    path: Path
    step: int
    score: float | None
    facts: dict[str, Any]
    stage: int


class RunCheckpoints:
    """The checkpoints in a folder of a local or mounted file system.

    Args:
        keep: how many of the newest steps stay; the best one stays besides.

    Raises:
        InputError: keep is below 1.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"keep {keep} leaves no checkpoint to resume from: give at least 1")
        self.folder, self.keep = Path(folder), keep

    def write(
        self,
        step: int,
        fill: Callable[[Path], None],
        *,
        score: float | None = None,
        facts: dict[str, Any],
        stage: int = 0,
    ) -> StoredCheckpoint:
        """Write a checkpoint, then remove those that need not stay. Whatever interrupts it, the older ones stay.

        Args:
            fill: writes files, in subfolders too, into the empty folder that it is given.
            score: to be minimised; None or a number that is not finite: never the best.
            facts: JSON-ready, handed back with the checkpoint.
            stage: of training; scores of different stages are not compared.

        Raises:
            DiskFull: there is no room for it. InputError: the place cannot be written.
        """
        self._clear()
        attempts = [attempt for number, attempt in map(_numbers, self._paths()) if number == step]
        path = self.folder / (f"step-{step:09d}" + (f"-{max(attempts) + 1}" if attempts else ""))
        score = score if score is not None and math.isfinite(score) else None
        with atomic_path(path) as temporary:
            try:
                temporary.mkdir()
                fill(temporary)
                members = sorted(member for member in temporary.rglob("*") if member.is_file())
                files = {member.relative_to(temporary).as_posix(): fingerprint(member) for member in members}
                content = {
                    "format": FORMAT, "version": VERSION, "step": step, "stage": stage, "score": score, "facts": facts,
                    "files": files,
                }  # fmt: skip
                write_json(temporary / MANIFEST, content | {"seal": _seal(content)})
            except Exception as error:
                if _is_full(error, temporary):
                    raise DiskFull(
                        f"no space left on the disk that holds {self.folder}: free some and resume the run"
                    ) from error
                raise
        try:
            self._prune()
        except OSError as error:  # the new one is whole: whatever stays too long can go with a later one
            print(f"older checkpoints in {self.folder} cannot be removed ({error}): they stay", flush=True)
        return StoredCheckpoint(path, step, score, facts, stage)

    def newest(self, verify: bool = False) -> StoredCheckpoint | None:
        """The checkpoint of the latest step that is whole; None without one.

        A damaged one is reported on standard output and set aside. Any process may ask, while another writes too.

        Args:
            verify: compare hashes too, which reads the whole checkpoint; otherwise only names and sizes.

        Raises:
            InputError: a file cannot be read, which says nothing of its content, or is of another release.
        """
        return next((found for path in self._paths() if (found := self._read(path, verify))), None)

    def best(self, verify: bool = False) -> StoredCheckpoint | None:
        """The whole checkpoint of the lowest score in the newest one's stage, the latest of equals; None where none
        there has a score. The rest as for `newest`."""
        ranked = _ranked(self._all())
        return next((found for found in ranked if not verify or self._read(found.path, verify)), None)

    def _paths(self) -> list[Path]:
        """Folders with a checkpoint's name, newest first."""
        found = [path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_numbers, reverse=True)

    def _all(self) -> list[StoredCheckpoint]:
        return [found for path in self._paths() if (found := self._read(path, verify=False))]

    def _read(self, path: Path, verify: bool) -> StoredCheckpoint | None:
        """The checkpoint if it is whole; if it is not, it is set aside, unless it was removed meanwhile."""
        try:
            found = _inspect(path, verify)
        except FileNotFoundError as error:
            found = f"{error.filename} is missing"
        except OSError as error:
            raise InputError(
                f"{error.filename or path} cannot be read ({error.strerror}): make it readable, or move {path.name} "
                "away to go on with an older checkpoint"
            ) from error
        if isinstance(found, StoredCheckpoint):
            return found
        if path.is_dir():
            self._set_aside(path, found)
        return None

    def _set_aside(self, path: Path, problem: str) -> None:
        aside = path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:8]}")
        try:
            path.rename(aside)
            where = f"set aside as {aside.name}"
        except OSError as error:
            where = f"left there ({error.strerror})"
        print(f"checkpoint {path} is damaged ({problem}): {where}; an older one is taken, if any", flush=True)

    def _prune(self) -> None:
        latest: dict[int, StoredCheckpoint] = {}
        stored = self._all()
        for found in stored:
            latest.setdefault(found.step, found)
        staying = list(latest.values())[: self.keep]
        staying += _ranked(list(latest.values()))[:1]
        paths = {found.path for found in staying}
        for found in stored:
            if found.path not in paths:
                found.path.rename(self.folder / f".{found.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        self._clear()

    def _clear(self) -> None:
        """Remove what killed writers left; what cannot go now can go with a later checkpoint."""
        try:
            remove_temporaries(self.folder)
        except OSError as error:
            print(f"what is left over in {self.folder} cannot be removed ({error}): it stays", flush=True)


def _inspect(path: Path, verify: bool) -> StoredCheckpoint | str:
    """What a folder holds, or what is wrong with it.

    Raises:
        OSError: a file cannot be read. InputError: another release wrote it.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        seal = manifest.pop("seal")
        if seal != _seal(manifest):
            return f"{MANIFEST} was altered after it was written"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is not one ({error!r})"
    if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
        raise InputError(
            f"{path / MANIFEST} is of format {manifest.get('format')} {manifest.get('version')}, this release reads "
            f"{FORMAT} {VERSION}: resume with the release that wrote it"
        )
    files: dict[str, Any] = manifest["files"]
    # All sizes first: they cost nothing and most damage shows in them.
    for content in (False, True) if verify else (False,):
        for name, entry in files.items():
            if problem := damage(path / name, entry, content=content):
                return problem
    return StoredCheckpoint(path, manifest["step"], manifest["score"], manifest["facts"], manifest["stage"])


def _seal(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its seal, equal before it is written and after it is read."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _numbers(path: Path) -> tuple[int, int]:
    """Step and attempt in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def _ranked(stored: list[StoredCheckpoint]) -> list[StoredCheckpoint]:
    """Those of the newest one's stage that have a score, best first, the latest of equals first.

    Args:
        stored: newest first.
    """
    scored = [(found.score, found) for found in stored if found.score is not None and found.stage == stored[0].stage]
    return [found for _, found in sorted(scored, key=lambda pair: pair[0])]


def _is_full(error: BaseException, place: Path) -> bool:
    """Whether a full disk made `error`: not every library says so, torch.save raises "unexpected pos"."""
    told = any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in _chain(error))
    return told or shutil.disk_usage(place.parent).free < _FULL


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
