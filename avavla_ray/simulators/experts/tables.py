"""Tables of expert reports in a Markdown file, a section a suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avavla_ray.simulators.experts.report import TaskReport


def section(title: str, suite: str, reports: list[TaskReport], total: str, episodes: int) -> str:
    """The Markdown of one suite's table between the two comments that `replace_section` looks for."""
    lines = [f"<!-- report {suite} -->", f"### {title}", "", f"{episodes} episodes a task: {total}.", ""]
    lines += ["| task | success | steps | instruction | remarks |", "|---:|---:|---:|---|---|"]
    lines += [f"| {' | '.join(report.cells())} | {report.remarks()} |" for report in reports]
    return "\n".join([*lines, f"<!-- end {suite} -->"])


def replace_section(path: Path, suite: str, text: str) -> None:
    """Put `text` where `path` has a section on `suite`, or at its end; everything else in it stays."""
    before = path.read_text() if path.exists() else ""
    old = re.compile(rf"<!-- report {re.escape(suite)} -->.*?<!-- end {re.escape(suite)} -->", re.DOTALL)
    after = old.sub(lambda _: text, before) if old.search(before) else f"{before.rstrip()}\n\n{text}\n".lstrip()
    path.write_text(after)
