"""Which processes a run has, found by what Ray calls them."""

from __future__ import annotations

import os
from pathlib import Path

TITLES = {"runner": "ray::SimulatorEnvRunner", "server": "ray::PolicyServer", "learner": "ray::Learner"}


class Family:
    """The descendants of this process that are alive, as they were when this was made."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                state, parent = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state not in "ZX":
                self._parents[int(place.name)] = int(parent)
        self.members = self.under(os.getpid())

    def under(self, root: int) -> frozenset[int]:
        """A process's descendants, itself not among them."""
        family = {root}
        while more := {pid for pid, parent in self._parents.items() if parent in family} - family:
            family |= more
        return frozenset(family - {root})

    def parts(self, part: str) -> list[int]:
        """Actors of a kind that have been constructed; of one that has not, Ray says what it says of one without a
        process."""
        titles = {pid: title(pid) for pid in self.members}
        return sorted(pid for pid, name in titles.items() if name.startswith(TITLES[part]) and "__init__" not in name)


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
