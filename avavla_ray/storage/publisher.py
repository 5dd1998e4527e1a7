"""Publishing a folder to a store: whole generations, of which only what changed is uploaded."""

from __future__ import annotations

import hashlib
import shutil
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.storage.freeze import Frozen, freeze, is_torn, scan
from avavla_ray.storage.manifest import FOLDER, Manifest, read_manifest, write_manifest
from avavla_ray.storage.notes import Marks, Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.progress import Telling, all_at_once
from avavla_ray.storage.stores import StoreUnreachable
from avavla_ray.storage.transfers import CHUNK, Entry, Interrupted, listing, remove, upload

ROUNDS = 5


class Overtaken(InputError):
    """Somebody else has published to the same address."""


class Publisher:
    """Brings a folder's state to a store, again and again.

    Args:
        root: address of the snapshot.
        notes: what this machine remembers of the folder; links to its files are made beside.
        base: the newest generation, if that is known: the one that the folder was brought from.

    Attributes:
        newest: the newest generation. outages: kept in the generations to come.
        passed: bytes that went to the store, for whoever waits. stop: when set, `publish` ends soon.
    """

    def __init__(self, folder: Path, root: Place, notes: Notes, base: Manifest | None = None) -> None:
        self.folder, self.root = folder, root
        self.newest = read_manifest(root) if base is None else base
        self.outages: list[dict[str, Any]] = list(self.newest.outages)
        self.stop, self.passed = threading.Event(), 0
        self._notes, self._links = notes, notes.path.with_suffix(".links")
        self._marks = notes.marks(self.newest.seal)  # of the files whose content the newest generation has
        self._sent: dict[str, tuple[Any, Entry]] = {}  # mark and entry of what no generation has yet
        self._at: str | None = None  # folder of the generation to come
        self._due: dict[str, list[str]] | None = None  # what the next generation need not keep
        self._tried: tuple[Manifest, Marks] | None = None  # written, without an answer

    def changed(self) -> bool:
        """Whether the folder holds anything else than the newest generation."""
        return scan(self.folder) != self._marks

    def publish(self) -> Manifest:
        """The folder as it is now becomes the newest generation, if it differs.

        Raises:
            Overtaken: somebody else has published there since. InputError: the store does not answer, or refuses.
            Interrupted: `stop` was set.
        """
        found = read_manifest(self.root)
        if self._tried is not None and found.seal == self._tried[0].seal:
            self._settle(*self._tried)
        self._tried = None
        self._check(found)
        at = self._prepare()
        files, kept = self._collect(self._send(at))
        if not files and self.newest.files:
            raise InputError(
                f"{self.folder} is empty or gone, {self.root} has {len(self.newest.files)} files of it: these stay; "
                "repeat the command to bring them back"
            )
        if files == self.newest.files:
            self._remember(kept)
            return self.newest
        manifest = Manifest(_generation(at), files, tuple(self.outages))
        self._check(read_manifest(self.root))
        self._notes.write({self.newest.seal: self._marks, manifest.seal: kept})
        self._tried = manifest, kept
        write_manifest(self.root, manifest)
        found = read_manifest(self.root)
        self._tried = None
        self._check(found, manifest)
        self._settle(manifest, kept)
        return manifest

    def _send(self, at: str) -> Marks:
        """Send what is new in the folder; the marks of all its files, at the moment of which they are published."""
        for _ in range(ROUNDS):
            known = dict(self._marks) | {name: mark for name, (mark, _) in self._sent.items()}
            try:
                marks, frozen = freeze(self.folder, known, self._links)
                self._upload(frozen, at)
                # Without links a file that was replaced meanwhile is lost, and its old content does not go with the
                # new one of others.
                unlinked = [name for name, each in frozen.items() if each.path == self.folder / name]
                if not any(is_torn(name, frozen[name]) for name in unlinked):
                    return marks
            finally:
                shutil.rmtree(self._links, ignore_errors=True)
        raise InputError(f"{self.folder} changes faster than it is sent, on a disk without hard links: give another")

    def _check(self, found: Manifest, expected: Manifest | None = None) -> None:
        """Raise Overtaken unless the store's newest generation is the one that this process knows."""
        expected = expected or self.newest
        if found.seal != expected.seal:
            raise Overtaken(
                f"{self.root} holds generation {found.generation} of another process, this one knows "
                f"{expected.generation}: end one of the two, or give another --output"
            )

    def _prepare(self) -> str:
        """The folder of the next generation, numbered above all that were ever begun."""
        if self._at is None:
            number = self.newest.generation
            if self._due is None:  # a process's first: what killed ones left goes
                self._due = _unnamed(listing(self.root), self.newest)
                number = max([number, *map(_generation, self._due)])
            self._at = f"v{number + 1:06d}-{uuid.uuid4().hex[:8]}"
        return self._at

    def _upload(self, frozen: dict[str, Frozen], at: str) -> None:
        """Send what was frozen, several files at once; what is torn by then waits for the next time."""
        telling = Telling(f"publishing {len(frozen)} files to {self.root}", sum(each.size for each in frozen.values()))

        def passed(count: int) -> None:
            if self.stop.is_set():
                raise Interrupted
            self.passed += count
            telling.passed(count)

        def send(name: str) -> None:
            each, before = frozen[name], self.newest.files.get(name)
            passed(0)
            try:
                if before is not None and before["size"] == each.size and _digest(each) == before["sha256"]:
                    entry = before
                else:
                    entry = {"at": at, **upload(each.path, self.root / f"{at}/{name}", each.size, passed)}
            except FileNotFoundError:
                return
            if not is_torn(name, each):
                self._sent[name] = each.mark, entry

        all_at_once(send, frozen)
        self._compare(at)
        telling.end()

    def _compare(self, at: str) -> None:
        """Ask the store what of it has arrived: one question for all."""
        fresh = {name: entry for name, (_, entry) in self._sent.items() if entry["at"] == at}
        found = listing(self.root / at) if fresh else {}
        wrong = [name for name, entry in fresh.items() if found.get(name) != entry["size"]]
        for name in wrong:
            del self._sent[name]
        if wrong:
            raise StoreUnreachable(f"{self.root} has not kept {wrong[0]} as it was sent: look after the store")

    def _collect(self, marks: Marks) -> tuple[dict[str, Entry], Marks]:
        """The files of the generation to come, and the marks of those that are in it with their newest content."""
        files: dict[str, Entry] = {}
        kept: Marks = {}
        before = self.newest.files
        for name in sorted(marks.keys() | (before.keys() & scan(self.folder).keys())):
            mark, sent = marks.get(name), self._sent.get(name)
            if mark is not None and sent is not None and sent[0] == mark:
                files[name], kept[name] = sent[1], mark
            elif name in before:
                files[name] = before[name]  # it did not change, or is just being written
                if mark is not None and self._marks.get(name) == mark:
                    kept[name] = mark
        return files, kept

    def _settle(self, manifest: Manifest, kept: Marks) -> None:
        """The generation is the newest: remove what neither it nor the one before names, since readers may be there."""
        before, self.newest = self.newest, manifest
        due, self._due = self._due or {}, {}
        dropped = [(name, entry) for name, entry in before.files.items() if manifest.files.get(name) != entry]
        dropped += [(name, entry) for name, (_, entry) in self._sent.items() if manifest.files.get(name) != entry]
        for name, entry in dropped:
            self._due.setdefault(entry["at"], []).append(name)
        self._at = None
        self._sent.clear()
        self._remember(kept)
        named = {entry["at"] for each in (before, manifest) for entry in each.files.values()}
        try:
            for at, names in due.items():
                if at in named:
                    for name in names:
                        remove(self.root / f"{at}/{name}")
                else:
                    remove(self.root / at, folder=True)
        except InputError as error:
            print(f"older files at {self.root} are not removed ({error}): they stay until the next run", flush=True)

    def _remember(self, kept: Marks) -> None:
        self._marks = kept
        self._notes.write({self.newest.seal: kept})


def _unnamed(found: Iterable[str], manifest: Manifest) -> dict[str, list[str]]:
    """Of all files in the store, those of generations that this one does not name, by the folder they are in."""
    named = {manifest.where(name) for name in manifest.files}
    due: dict[str, list[str]] = {}
    for path in found:
        at, _, name = path.partition("/")
        if FOLDER.fullmatch(at):
            due.setdefault(at, []).extend([] if path in named else [name])
    return due


def _generation(at: str) -> int:
    match = FOLDER.fullmatch(at)
    assert match is not None
    return int(match[1])


def _digest(frozen: Frozen) -> str:
    """SHA-256 of what counts of it."""
    digest, left = hashlib.sha256(), frozen.size
    with frozen.path.open("rb") as stream:
        while left and (chunk := stream.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
