"""A folder as it is at one moment, while others go on writing into it.

Our files are written beside their place and renamed, or are ledgers to which lines are added. So a hard link keeps the
content of the first kind, whatever happens to the name meanwhile, and of the second kind a prefix of whole lines is
taken. What is written in any other way is left out until it rests.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from avavla_ray.errors import InputError

LEDGERS = (".jsonl", ".log")
APART = ".apart"  # in a folder that has a snapshot of its own, published by another process
_NOISE = re.compile(r"\..*\.(tmp|old|lock|links)|\.lock|__pycache__|ray")
ROUNDS, PAUSE_S = 60, 0.05


class Mark(NamedTuple):
    """What tells that a file is still the same: its bytes, the time of its last change in ns, its number."""

    size: int
    changed: int
    number: int


@dataclass(frozen=True)
class Frozen:
    """path: where the content stays as it is. size: bytes of it that count. mark: of the file when it was frozen."""

    path: Path
    size: int
    mark: Mark


def scan(folder: Path) -> dict[str, Mark]:
    """Files that belong to a run, by their path in its folder: no locks, no temporaries, no notes of Ray's."""
    found: dict[str, Mark] = {}
    _scan(folder, "", found)
    return found


def _scan(folder: Path, prefix: str, found: dict[str, Mark]) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    if prefix and any(entry.name == APART for entry in entries):
        return
    for entry in entries:
        try:
            if _NOISE.fullmatch(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                _scan(folder / entry.name, f"{prefix}{entry.name}/", found)
            elif stat.S_ISREG((told := entry.stat(follow_symlinks=False)).st_mode) and entry.name != APART:
                found[prefix + entry.name] = Mark(told.st_size, told.st_mtime_ns, told.st_ino)
        except FileNotFoundError:
            continue


def freeze(folder: Path, known: dict[str, Mark], into: Path) -> tuple[dict[str, Mark], dict[str, Frozen]]:
    """All files of a folder at one moment, and those of them that are not `known`, kept as they are.

    Args:
        into: a folder for links, on the same disk; made anew.

    Returns:
        Marks of all files that rest; what is frozen of them.
    """
    for _ in range(ROUNDS):
        shutil.rmtree(into, ignore_errors=True)
        before = scan(folder)
        links = _link(folder, [name for name, mark in before.items() if known.get(name) != mark], into)
        after = scan(folder)
        numbers = [{name: mark.number for name, mark in marks.items()} for marks in (before, after)]
        if links is not None and numbers[0] == numbers[1]:
            # A ledger may be ahead of what was written beside it, as when a run is killed, and never behind.
            marks = {name: after[name] for name in before if before[name] == after[name] or is_ledger(name)}
            links |= {name: folder / name for name in marks if marks[name] != before[name] and name not in links}
            return marks, {
                name: Frozen(link, _whole(link, marks[name].size) if is_ledger(name) else marks[name].size, marks[name])
                for name, link in links.items()
                if name in marks
            }
        time.sleep(PAUSE_S)
    raise InputError(f"{folder} changes all the time: what is in it cannot be published")


def _link(folder: Path, names: list[str], into: Path) -> dict[str, Path] | None:
    """Links to these files; None where one of them has gone meanwhile."""
    links = {}
    into.mkdir(parents=True)
    for number, name in enumerate(names):
        links[name] = into / str(number)
        try:
            os.link(folder / name, links[name], follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError:  # a file system without links: then a rename meanwhile is noticed, and tried again later
            links[name] = folder / name
    return links


def is_ledger(name: str) -> bool:
    """Whether lines are added to this file while it is read."""
    return name.endswith(LEDGERS)


def _whole(path: Path, size: int) -> int:
    """Bytes of a ledger up to the end of its last line within the first `size`."""
    try:
        with path.open("rb") as stream:
            end = size
            while end > 0:
                start = max(0, end - (1 << 16))
                stream.seek(start)
                at = stream.read(end - start).rfind(b"\n")
                if at >= 0:
                    return start + at + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


def is_torn(name: str, frozen: Frozen) -> bool:
    """Whether the content has changed since it was frozen."""
    try:
        told = os.stat(frozen.path)
    except FileNotFoundError:
        return True
    now = Mark(told.st_size, told.st_mtime_ns, told.st_ino)
    return now.size < frozen.size if is_ledger(name) else now != frozen.mark
