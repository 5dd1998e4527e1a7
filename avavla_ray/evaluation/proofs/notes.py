"""steps.json in a proof's folder: which steps are finished, with which words, and how long they took.

Only running time counts: a pause between two commands is no part of it. While a step runs the file is written every
half minute, so that a kill, of the machine too, costs no more.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.proofs.step import Step
from avavla_ray.files import write_json

STEPS = "steps.json"
EVERY_S = 30.0


class Notes:
    """Of one proof's folder.

    Attributes:
        steps: by key: `words`, `seconds`, `finished` (a number that rises with every making, None before the end),
            `reads` (that number of each step that it reads), `commits` and `machines` that it ran on.

    Raises:
        InputError: the file can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path, self._lock = folder, folder / STEPS, threading.Lock()
        self.steps: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            try:
                self.steps = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(
                    f"{self._path} is not readable ({error}): remove it, or give another --output"
                ) from error

    def finished(self, step: Step) -> bool:
        """Whether this step, with these words, has been done and what it made is still there."""
        noted = self.steps.get(step.key)
        return (
            noted is not None and noted["finished"] is not None and noted["words"] == _words(step)
            and (self.folder / step.key / step.makes).is_file()
        )  # fmt: skip

    def check_fresh(self, step: Step) -> None:
        """Raise InputError where a step has been begun with what another step has made anew since."""
        noted = self._kept(step)
        if noted is None:
            return
        newer = [key for key, number in self._made(step).items() if noted["reads"].get(key, number) != number]
        if newer:
            raise InputError(
                f"{self.folder / step.key} was begun with what {newer[0]} has made anew since: remove that folder and "
                "repeat the command"
            )

    @contextlib.contextmanager
    def running(self, step: Step, commit: str, machine: str, every: float = EVERY_S) -> Iterator[None]:
        """Count the time of the block, however it ends. At its good end the step is finished.

        A job that refuses other words than it was finished with (status 2) leaves the step as finished as it was.
        """
        before = self._kept(step) or {"seconds": 0.0, "commits": [], "machines": []}
        note: dict[str, Any] = {
            "words": _words(step), "seconds": before["seconds"], "finished": None, "reads": self._made(step),
            "commits": list(dict.fromkeys([*before["commits"], commit])),
            "machines": list(dict.fromkeys([*before["machines"], machine])),
        }  # fmt: skip
        self.steps[step.key] = note
        start, over = time.monotonic(), threading.Event()

        def count() -> None:
            note["seconds"] = before["seconds"] + time.monotonic() - start
            self._write()

        def keep_counting() -> None:
            while not over.wait(every):
                with contextlib.suppress(InputError):  # a disk that is full now may not be at the end
                    count()

        count()
        thread = threading.Thread(target=keep_counting, daemon=True)
        thread.start()
        try:
            yield
            self._check_made(step)
            note["finished"] = self._next_number()
        except SystemExit as end:
            if end.code == 2 and before.get("finished") is not None:
                note |= {name: before[name] for name in ("words", "finished", "reads")}
            raise
        finally:
            over.set()
            thread.join()
            count()

    def minutes(self, steps: tuple[Step, ...]) -> float:
        """Running time of some steps."""
        return sum(self.steps[step.key]["seconds"] for step in steps) / 60

    def ran(self, steps: tuple[Step, ...], what: str) -> list[str]:
        """All `commits` or `machines` of some steps, in their order."""
        return list(dict.fromkeys(each for step in steps for each in self.steps[step.key][what]))

    def _kept(self, step: Step) -> dict[str, Any] | None:
        """Its note, unless somebody removed its folder: what was in there is no part of the proof any more."""
        return self.steps.get(step.key) if (self.folder / step.key).is_dir() else None

    def _made(self, step: Step) -> dict[str, int]:
        """Which making of each step that it reads is there."""
        return {key: self.steps[key]["finished"] for key in step.reads}

    def _next_number(self) -> int:
        """Higher than that of any making that somebody has read."""
        notes = self.steps.values()
        return 1 + max(number or 0 for note in notes for number in (note["finished"], *note["reads"].values()))

    def _check_made(self, step: Step) -> None:
        made = self.folder / step.key / step.makes
        if not made.is_file():
            raise InputError(f"jobs/{step.job}.py ended well but left no {made}: see what it said")

    def _write(self) -> None:
        with self._lock:
            write_json(self._path, self.steps)


def _words(step: Step) -> list[str]:
    """The same wherever the folder is."""
    return step.spelled(Path("."))
