"""The ledger of a collection: which attempts were made, what came of them, which come next.

A task's demonstrations are its first N successful attempts in order, and an attempt's start depends on the seed, the
task and its number alone. So the data set is the same for any number of runners and any interruptions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.files import write_json

LEDGER = "collection.json"
KEPT, FAILED, LOST = "kept", "failed", "lost"


class Attempt(NamedTuple):
    """One try at a task; `number` counts from 0 within the task."""

    task: int
    number: int

    def seed(self, base: int) -> int:
        """Seed of its start and of its expert."""
        return int(np.random.SeedSequence([base, self.task, self.number]).generate_state(1, np.uint32)[0] >> 1)

    def name(self, suite: str) -> str:
        """Name of its episode."""
        return f"{suite}-{self.task:02d}-{self.number:05d}"


class Collection:
    """A collection in a folder; continuing it needs the same identity.

    Attributes:
        provenance: what the simulator and the machine said of themselves, None before the first episode.
        quarantined: tasks that are left as they are this time, and why; the next collection gives them another chance.
        without_expert: tasks that nobody can demonstrate, and why.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], tasks: Sequence[int], wanted: int) -> None:
        """
        Args:
            identity: everything the episodes depend on; JSON-ready. wanted: demonstrations of each task.

        Raises:
            InputError: the folder holds a collection of another identity.
        """
        if wanted < 1:
            raise InputError(f"{wanted} episodes a task: give at least 1")
        self.folder, self.identity = folder, identity
        self.tasks, self.wanted = list(tasks), wanted
        self.outcomes: dict[Attempt, str] = {}
        self.provenance: dict[str, Any] | None = None
        self.quarantined: dict[int, str] = {}
        self.without_expert: dict[int, str] = {}
        self._running: set[Attempt] = set()
        if self._path.is_file():
            self._load()

    @property
    def _path(self) -> Path:
        return self.folder / LEDGER

    def _load(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            found, attempts = content["identity"], content["attempts"]
            self.provenance = content["provenance"]
            self.outcomes = {Attempt(task, number): outcome for task, number, outcome in attempts}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._path} is no ledger of ours ({error!r}): choose another --output") from error
        differing = sorted(
            key for key in found.keys() | self.identity.keys() if found.get(key) != self.identity.get(key)
        )
        if differing:
            changes = ", ".join(f"{key} {found.get(key)} -> {self.identity.get(key)}" for key in differing)
            raise InputError(f"{self.folder} holds a collection made otherwise ({changes}): choose another --output")

    def save(self) -> None:
        attempts = [[*attempt, outcome] for attempt, outcome in sorted(self.outcomes.items())]
        write_json(self._path, {"identity": self.identity, "provenance": self.provenance, "attempts": attempts})

    def forget(self, attempt: Attempt) -> None:
        """Make an attempt anew, for instance because its file is gone."""
        self.outcomes.pop(attempt, None)

    def withdraw(self, attempt: Attempt) -> None:
        """Whoever took an attempt does not make it: it is to be taken again."""
        self._running.discard(attempt)

    def leave_out(self, attempt: Attempt, reason: str) -> None:
        """Nobody can demonstrate the attempt's task: neither this attempt nor another is made."""
        self.withdraw(attempt)
        self.without_expert[attempt.task] = reason

    def kept(self, task: int) -> list[Attempt]:
        return sorted(a for a, outcome in self.outcomes.items() if a.task == task and outcome == KEPT)

    def missing(self, task: int) -> int:
        """Attempts to hand out now, if all that are running succeed; none of a task that is left out."""
        if task in self.quarantined or task in self.without_expert:
            return 0
        running = sum(attempt.task == task for attempt in self._running)
        return max(0, self.wanted - len(self.kept(task)) - running)

    def take(self, preferred: int | None = None, avoided: Sequence[int] = ()) -> Attempt | None:
        """The next attempt to make, or None when none is needed now.

        Args:
            preferred: a task that the asking runner has loaded. avoided: tasks that others have loaded.
        """
        open_tasks = [task for task in self.tasks if self.missing(task)]
        if not open_tasks:
            return None
        fresh = [task for task in open_tasks if task not in avoided]
        task = preferred if preferred in open_tasks else (fresh or open_tasks)[0]
        known = {a.number for a in self.outcomes if a.task == task} | {
            a.number for a in self._running if a.task == task
        }
        attempt = Attempt(task, next(n for n in range(len(known) + 1) if n not in known))
        self._running.add(attempt)
        return attempt

    def settle(self, attempt: Attempt, outcome: str) -> None:
        """Enter what came of an attempt and write the ledger.

        Raises:
            InputError: the task's starts are mostly not solved.
        """
        self._running.discard(attempt)
        self.outcomes[attempt] = outcome
        self.save()
        made = [o for a, o in self.outcomes.items() if a.task == attempt.task]
        # What was lost says nothing about the expert, and quarantine sees to it.
        failures = made.count(FAILED)
        ended = failures + made.count(KEPT)
        if failures >= 10 and failures > ended / 2:
            raise InputError(f"task {attempt.task} failed in {failures} of {ended} attempts: leave it out with --tasks")

    def count(self, outcome: str) -> int:
        return sum(o == outcome and a.task in self.tasks for a, o in self.outcomes.items())

    @property
    def done(self) -> bool:
        return not self._running and not any(self.missing(task) for task in self.tasks)
