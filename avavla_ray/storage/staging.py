"""The local folder that a job works in when its output is an address in a store.

CACHE/outputs/HASH/NAME/        the folder; NAME is the last part of the address
CACHE/outputs/HASH/NAME.json    which generation of the store it is at
CACHE/outputs/HASH/NAME.lock/   held by the process that works there
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import cache_folder, sha256
from avavla_ray.run_identity import DYING_S
from avavla_ray.storage.fetching import bring, fetch
from avavla_ray.storage.freeze import scan
from avavla_ray.storage.manifest import Manifest, read_manifest
from avavla_ray.storage.notes import Marks, Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import scheme_of
from avavla_ray.training.run_lock import RunLock

BRINGING = "bringing"  # instead of a seal: a process was killed while it fetched


class _Lock(RunLock):
    """Whose refusal names the address, which people know, too."""

    def __init__(self, folder: Path, patience: float, place: Place) -> None:
        super().__init__(folder, patience)
        self._place = place

    def __enter__(self) -> _Lock:
        try:
            super().__enter__()
        except InputError as error:
            raise InputError(f"{self._place}: {error}") from error
        return self


class Staging:
    """The folder of one address on this machine.

    Attributes:
        folder: to work in. notes: what is known of it. lock: to hold while working there.
    """

    def __init__(self, place: Place, inside: str = "") -> None:
        """
        Args:
            inside: a folder below that has a snapshot of its own.
        """
        if scheme_of(str(place)) is None:
            raise InputError(f"{place} is a local folder: give it as it is")
        key = hashlib.sha256(str(place).rstrip("/").encode()).hexdigest()[:12]
        home = cache_folder().absolute() / "outputs" / key
        self.root = place / inside if inside else place
        self.folder = home / (place.name or "output") / inside
        name = inside.replace("/", ".") or place.name or "output"
        self.notes = Notes(home / f"{name}.json")
        self.lock = _Lock(home / f"{name}.lock", DYING_S, place)

    def bring(self, discard: bool = False) -> Manifest:
        """Make the folder what the store has, and return that: generation 0 where nothing was published yet.

        What this machine has not yet published of an interrupted run stays, as long as nobody else has published
        since; else it is set aside.

        Args:
            discard: remove it then instead.

        Raises:
            InputError: the store does not answer or refuses; there is no such bucket; what is there is no snapshot.
        """
        newest = read_manifest(self.root)
        if not newest.generation:
            self.root.is_folder()  # says so where there is no bucket
        noted = self.notes.read()
        if newest.seal in noted:
            return newest if self._complete(newest, noted[newest.seal]) else self.bring(discard)
        if not noted and not newest.generation:
            return newest
        # The first: that one was published for certain, a second one is noted before its manifest is written.
        marks = next(iter(noted.values()), {})
        here = scan(self.folder)
        if not (discard or BRINGING in noted or here == marks or self._is_in(newest, here)):
            self._set_aside()
            here = {}
        self.notes.write({BRINGING: marks})
        if not newest.generation:
            for name in here:
                (self.folder / name).unlink(missing_ok=True)
            kept: Marks = {}
        else:
            newest, kept = fetch(self.root, self.folder, exact=True)
        self.notes.write({newest.seal: kept})
        return newest

    def _complete(self, newest: Manifest, marks: Marks) -> bool:
        """Bring what has gone from the folder, as after a cleaner of old files: it would be published as removed. False
        when the store has another generation by now.

        What a killed run itself had removed comes back with it, which costs space only.
        """
        gone = {name: newest.files[name] for name in newest.files.keys() - scan(self.folder).keys()}
        if gone:
            print(f"{len(gone)} files of {self.root} are gone from {self.folder}: they are brought again", flush=True)
            try:
                bring(self.root, newest, self.folder, gone)
            except FileNotFoundError:
                return False
            now = scan(self.folder)
            self.notes.write({newest.seal: {**marks, **{name: now[name] for name in gone if name in now}}})
        return True

    def _is_in(self, manifest: Manifest, here: Marks) -> bool:
        """Whether nothing would be lost here: every file is just as the store has it."""
        theirs = {name: manifest.files.get(name, {}) for name in here}
        if any(mark.size != theirs[name].get("size") for name, mark in here.items()):
            return False
        return all(sha256(self.folder / name) == entry["sha256"] for name, entry in theirs.items())

    def _set_aside(self) -> None:
        aside = self.notes.path.with_suffix(f".{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}")
        self.folder.rename(aside)
        print(
            f"{self.folder} was not published when it was left, and {self.root} has gone on elsewhere since: it is "
            f"set aside as {aside}, and what is published is taken",
            flush=True,
        )
