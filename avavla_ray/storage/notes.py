"""What this machine remembers of a folder that it publishes or was brought: which generation each file belongs to."""

from __future__ import annotations

import json
from pathlib import Path

from avavla_ray.files import write_json
from avavla_ray.storage.freeze import Mark

Marks = dict[str, Mark]


class Notes:
    """A file beside the folder: the marks of its files at the newest generations, by the seal of their manifest.

    Two generations, since a process can be killed between writing a manifest and noting that it did.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, generations: dict[str, Marks]) -> None:
        write_json(self.path, generations)

    def read(self) -> dict[str, Marks]:
        """{} where nothing, or nothing of use, is noted."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {seal: {name: Mark(*mark) for name, mark in marks.items()} for seal, marks in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def marks(self, seal: str) -> Marks:
        """Of the files that are as this generation has them."""
        return self.read().get(seal, {})
