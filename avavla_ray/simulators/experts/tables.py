"""Tables of expert reports in a Markdown file, a section a suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avavla_ray.files import write_text

if TYPE_CHECKING:
    from avavla_ray.simulators.experts.report import TaskReport


def section(title: str, suite: str, reports: list[TaskReport], kept: dict[int, str], episodes: int) -> str:
    """The Markdown of one suite's table between the two comments that `replace_section` looks for.

    Args:
        kept: rows of other tasks by their index, from an earlier table.
    """
    rows = kept | {r.task: f"| {' | '.join(r.cells())} | {r.remarks()} |" for r in reports}
    scores = [re.match(r"\| \d+ \| (\d+)/(\d+) \|", row) for row in rows.values()]
    good, tried = (sum(int(score[part]) for score in scores if score) for part in (1, 2))
    without = sum(score is None for score in scores)
    share = f"{good}/{tried} = {good / tried:.1%}" if tried else "none tried"
    missing = f", no expert for {without} of {len(rows)} tasks" if without else ""
    lines = [f"<!-- report {suite} -->", f"### {title}", "", f"{episodes} episodes a task: {share}{missing}.", ""]
    lines += ["| task | success | steps | instruction | remarks |", "|---:|---:|---:|---|---|"]
    return "\n".join([*lines, *(rows[task] for task in sorted(rows)), f"<!-- end {suite} -->"])


def rows_of(path: Path, suite: str) -> dict[int, str]:
    """The rows by task that `path` has in its section on `suite`."""
    old = _pattern(suite).search(path.read_text()) if path.exists() else None
    return {int(row[1]): row[0] for row in re.finditer(r"^\| (\d+) \|.*$", old[0], re.MULTILINE)} if old else {}


def replace_section(path: Path, suite: str, text: str) -> None:
    """Put `text` where `path` has a section on `suite`, or at its end; everything else in it stays."""
    before = path.read_text() if path.exists() else ""
    old = _pattern(suite)
    after = old.sub(lambda _: text, before) if old.search(before) else f"{before.rstrip()}\n\n{text}\n".lstrip()
    write_text(path, after)


def _pattern(suite: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- report {re.escape(suite)} -->.*?<!-- end {re.escape(suite)} -->", re.DOTALL)
