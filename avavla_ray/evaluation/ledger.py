"""What an evaluation has finished, one JSON line each, so that a stopped one goes on where it was."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from avavla_ray.errors import InputError
from avavla_ray.files import append_line, write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


class RecordLedger(ABC, Generic[Record]):
    """Records of one evaluation by their key; a subclass says of what.

    The first line names what is evaluated. A ledger of something else is refused, and so is one with records in it
    where nobody asked to resume: they would be lost.

    Attributes:
        kind: dataclass of a record. unit: what a record is of, for messages. whole: what all are of. advice: what to
            do about a ledger of something else.

    Raises:
        InputError: the file holds records and nobody asked to resume, or those of another evaluation.
    """

    kind: ClassVar[type]
    unit: ClassVar[str]
    whole: ClassVar[str] = "evaluation"
    advice: ClassVar[str] = "choose another --output"

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.records: dict[Any, Record] = {}
        for fields in self.check(path, identity, resume):
            record: Record = self.kind(**fields)
            if self.keeps(record):
                self.records[self.key(record)] = record
        kept = [json.dumps(asdict(record)) for record in self.records.values()]
        write_text(path, "\n".join([_head(identity), *kept]) + "\n")

    @classmethod
    def check(cls, path: Path, identity: dict[str, Any], resume: bool) -> list[dict[str, Any]]:
        """Refuse what can't be opened so, without writing anything.

        Returns:
            Its records as they are written, each by its fields.

        Raises:
            InputError: see the class.
        """
        head = _head(identity)
        found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        first, *lines = found or [head]  # an empty file is what a process leaves that was killed at once
        if lines and not resume:
            raise InputError(f"{path} holds finished {cls.unit}: add --resume to keep them, or give another --output")
        if resume and first != head:
            raise InputError(f"{path} belongs to another {cls.whole}{_differences(first, identity)}: {cls.advice}")
        return [fields for line in lines if (fields := _parsed(line)) is not None]

    @abstractmethod
    def key(self, record: Record) -> Hashable:
        """What a record is known by."""

    def keeps(self, record: Record) -> bool:
        """Whether a resumed evaluation keeps this record; otherwise it is made again."""
        return True

    def add(self, record: Record) -> None:
        self.records[self.key(record)] = record
        append_line(self.path, json.dumps(asdict(record)))

    def __contains__(self, key: Hashable) -> bool:
        return key in self.records


def _head(identity: dict[str, Any]) -> str:
    return json.dumps({"evaluates": identity}, sort_keys=True)


def _parsed(line: str) -> Any:
    """None of the line that a killed process was writing: what it is of is done again."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _differences(first: str, identity: dict[str, Any]) -> str:
    """In what a ledger's first line is of something else, for people."""
    try:
        before = json.loads(first)["evaluates"]
    except (ValueError, KeyError, TypeError):
        return ""
    now = json.loads(_head(identity))["evaluates"]
    named = [f"{key} {before.get(key)} -> {now.get(key)}" for key in sorted({*before, *now})
             if before.get(key) != now.get(key)]  # fmt: skip
    return f" ({', '.join(named)})"
