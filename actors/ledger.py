"""The record of every episode that ended: a line of JSON each, on the disk as soon as the driver hears of it.

A line holds the fields of the EpisodeSummary, and `version` (of the oldest weights in what came with it), `runner` and
`time` (when the driver heard of it, seconds since 1970).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors.report import Report
from avavla_ray.files import append_line

BLOCK = 1 << 16
EPISODE = re.compile(r"-(\d+)\.(\d+)-\d+-\d+$")  # runner, incarnation, simulator, count; see SimulatorEnvRunner.start


class Ledger:
    """Appends to a file, which need not exist, and goes on with one that does.

    Episode ids are unique over runners, restarts and resumed runs (see `SimulatorEnvRunner.start`), and a report is
    written once, when it arrives: so no episode is in it twice, and none is missing of which the driver has heard.
    Nothing is written before the first report.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._whole = False

    def append(self, reports: Iterable[tuple[int, Report]]) -> None:
        """Write the episodes that ended in these reports, each with its runner, and flush them to the disk.

        Raises:
            InputError: the file cannot be written, or the disk is full.
        """
        now = time.time()
        lines = [
            json.dumps({**asdict(episode), "version": report.version, "runner": runner, "time": now})
            for runner, report in reports for episode in report.finished
        ]  # fmt: skip
        if not lines:
            return
        if not self._whole:
            cut_torn_line(self.path)
            self._whole = True
        append_line(self.path, "\n".join(lines))


def incarnations(path: str | Path) -> dict[int, int]:
    """The highest incarnation of each runner of which an episode is in the file; empty where there is none."""
    highest: dict[int, int] = {}
    if Path(path).exists():
        for row in read_ledger(path):
            if named := EPISODE.search(row["episode_id"]):
                runner, incarnation = map(int, named.groups())
                highest[runner] = max(highest.get(runner, 0), incarnation)
    return highest


def cut_torn_line(path: Path) -> None:
    """Remove what a process that was killed while writing has left behind the last whole line."""
    if not path.exists():
        return
    with path.open("r+b") as stream:
        size = end = stream.seek(0, 2)
        while end:
            start = max(0, end - BLOCK)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            stream.truncate(end)


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Every whole line, in the order in which they were written."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]
