"""What has become of each member of an import, so that it can be interrupted, repeated and continued.

While an import runs, every settled member is a line of `import.jsonl`; when it ends, `import.json` holds them all.
"""

from __future__ import annotations

import errno
import fcntl
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from avavla_ray.demonstrations.importers.source import Member, Skipped, sort_of
from avavla_ray.demonstrations.schema import IMPORT_JOURNAL, MANIFEST, STEPS, Episode
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.errors import InputError
from avavla_ray.files import append_line, remove_temporaries, write_json, write_text

RESULT = "import.json"
LOCK = ".import.lock"
GONE = "gone: it was imported, and is no longer in the source"


@dataclass(frozen=True)
class Written:
    """An episode that has been written, and the size of its file in bytes."""

    episode: str
    steps: int
    dropped: int
    instruction: str
    bytes: int


@dataclass(frozen=True)
class Settled:
    """A member and what came of it.

    Attributes:
        where, detail: the member's. skipped: episodes that it left out, with the reason.
        broken: why nothing can be had of it; None when it was read.
    """

    name: str
    where: str
    detail: dict[str, Any]
    written: tuple[Written, ...]
    skipped: tuple[Skipped, ...]
    broken: str | None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Settled:
        return cls(
            value["name"], value["where"], value["detail"], tuple(Written(**entry) for entry in value["written"]),
            tuple(Skipped(*entry) for entry in value["skipped"]), value["broken"],
        )  # fmt: skip

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """Place and reason of everything that is missing of it."""
        found = [
            (self.where if skipped.episode == self.name else f"{self.where}: {skipped.episode}", skipped.reason)
            for skipped in self.skipped
        ]
        return [*found, (self.where, self.broken)] if self.broken is not None else found


class ImportLedger:
    """The settled members of the import in a folder; continuing it needs the same identity.

    The folder is this process's own until it ends: another that opens it is refused.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """
        Args:
            identity: everything that the episodes depend on besides their members; JSON-ready.

        Raises:
            InputError: the folder holds an import of another identity, or something else, or is being imported into.
        """
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))  # as a file gives it back
        self._writer = DatasetWriter(folder)
        self._settled: dict[str, Settled] = {}
        self._load()

    def _load(self) -> None:
        result, journal = self.folder / RESULT, self.folder / IMPORT_JOURNAL
        if not result.is_file() and not journal.is_file() and self._holds_something():
            raise InputError(f"{self.folder} is not empty and holds no import: give another --output")
        self._lock = self._locked()
        lines: list[str] = []
        if journal.is_file():
            *lines, torn = journal.read_text(encoding="utf-8").split("\n")
            if torn:
                write_text(journal, "".join(f"{line}\n" for line in lines))
        try:
            found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
            begun = json.loads(lines[0]) if lines else None
            entries = [*(found["members"] if found else ()), *(json.loads(line) for line in lines[1:])]
            identities = [content["identity"] for content in (found, begun) if content]
            settled = [Settled.from_json(entry) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.folder} holds no import of ours ({error!r}): give another --output") from error
        for identity in identities:
            self._check(identity)
        for folder in (self.folder, self.folder / STEPS):
            remove_temporaries(folder)
        self._settled = {entry.name: entry for entry in settled}
        if not lines:
            write_text(journal, json.dumps({"identity": self.identity}) + "\n")

    def _holds_something(self) -> bool:
        return self.folder.is_dir() and any(path.name != LOCK for path in self.folder.iterdir())

    def _locked(self) -> TextIO:
        """An open file whose lock ends with this process, however it ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = open(self.folder / LOCK, "w", encoding="utf-8")  # noqa: SIM115  open as long as the ledger
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written ({error.strerror}): give another --output") from error
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            taken = error.errno in (errno.EACCES, errno.EAGAIN)
            problem = "another job imports into it, wait for it" if taken else f"it can't be locked ({error.strerror})"
            raise InputError(f"{self.folder}: {problem} or give another --output") from error
        return stream

    def _check(self, found: dict[str, Any]) -> None:
        keys = sorted(found.keys() | self.identity.keys())
        changes = [
            f"{key} {found.get(key)} -> {self.identity.get(key)}"
            for key in keys if found.get(key) != self.identity.get(key)
        ]  # fmt: skip
        if changes:
            raise InputError(
                f"{self.folder} holds an import made otherwise ({', '.join(changes)}): give another --output"
            )

    def is_settled(self, member: Member) -> bool:
        """Whether nothing is to be done for it: it was read as it is now, and its episodes are there, whole.

        A member that was broken is tried again, since somebody may have repaired it.
        """
        entry = self._settled.get(member.name)
        if entry is None or entry.broken is not None or entry.detail != member.detail:
            return False
        return all(self._size(written.episode) == written.bytes for written in entry.written)

    def _size(self, episode: str) -> int | None:
        path = self._writer.path(episode)
        return path.stat().st_size if path.is_file() else None

    def settle(
        self, member: Member, episodes: Sequence[Episode], skipped: Sequence[Skipped], broken: str | None
    ) -> None:
        """Write a member's episodes and enter what came of it.

        Raises:
            InputError: the disk is full or can't be written.
        """
        before = self._settled.get(member.name)
        if episodes or (before and before.written):
            # Its index and statistics are those of other episodes from here on.
            (self.folder / MANIFEST).unlink(missing_ok=True)
        for episode in episodes:
            self._writer.write(episode)
        written = tuple(
            Written(
                e.info.episode, e.info.steps, e.info.dropped, e.info.instruction,
                self._writer.path(e.info.episode).stat().st_size,
            )
            for e in episodes
        )  # fmt: skip
        for stale in before.written if before else ():
            if stale.episode not in {entry.episode for entry in written}:
                self._writer.path(stale.episode).unlink(missing_ok=True)
        entry = Settled(member.name, member.where, member.detail, written, tuple(skipped), broken)
        append_line(self.folder / IMPORT_JOURNAL, json.dumps(asdict(entry)))
        self._settled[member.name] = entry

    def settle_gone(self, members: Sequence[Member]) -> list[Member]:
        """Leave out what was imported before and is not among the source's `members` any more.

        Returns:
            members that are missing, as every later import tells them too.
        """
        present, gone = {member.name for member in members}, []
        for entry in list(self._settled.values()):
            if entry.name in present:
                continue
            if not entry.written and entry.broken != GONE:
                del self._settled[entry.name]  # nothing was had of it
                continue
            gone.append(Member(entry.name, entry.where, entry.detail))
            if entry.written:
                self.settle(gone[-1], [], [], GONE)
        return gone

    def of(self, members: Sequence[Member]) -> list[Settled]:
        """What came of `members`, in their order."""
        return [self._settled[member.name] for member in members]

    def finish(self, members: Sequence[Member], manifest: dict[str, Any]) -> dict[str, Any]:
        """Close the data set of `members`: index, statistics, manifest with the summary, and import.json.

        Args:
            manifest: what dataset.json holds besides; its "suite" names the data set.

        Returns:
            the summary.
        """
        entries = self.of(members)
        summary = summarise(entries)
        names = [written.episode for entry in entries for written in entry.written]
        self._writer.finish(manifest["suite"], names, {**manifest, "import": {**self.identity, **summary}})
        # Members outside this run's --limit stay known.
        order = {member.name: index for index, member in enumerate(members)}
        kept = sorted(self._settled.values(), key=lambda entry: (order.get(entry.name, len(order)), entry.name))
        write_json(
            self.folder / RESULT,
            {"identity": self.identity, "summary": summary, "members": [asdict(entry) for entry in kept]},
        )
        (self.folder / IMPORT_JOURNAL).unlink()
        return summary


def summarise(entries: Sequence[Settled]) -> dict[str, Any]:
    """Counts of an import: members, episodes, steps, dropped_steps, instructions, left_out and why by sort."""
    written = [episode for entry in entries for episode in entry.written]
    reasons = Counter(sort_of(reason) for entry in entries for _, reason in entry.left_out)
    return {
        "members": len(entries), "episodes": len(written), "steps": sum(episode.steps for episode in written),
        "dropped_steps": sum(episode.dropped for episode in written),
        "instructions": len({episode.instruction for episode in written}),
        "left_out": sum(reasons.values()), "reasons": dict(sorted(reasons.items())),
    }  # fmt: skip
