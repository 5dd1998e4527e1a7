"""Publish a folder to a store, as a job with --output URI does at its end.

python -m avavla_ray.storage.publish FOLDER URI
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.storage.notes import Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.publisher import Publisher


def main(folder: Path, uri: str) -> None:
    """Make the folder the newest generation at the address. What is published already is not sent again.

    Raises:
        InputError: no such folder; the store refuses or does not answer.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one of a run")
    root = Place.of(uri)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".publish-", suffix=".tmp") as beside:
        newest = Publisher(folder, root, Notes(Path(beside) / "notes.json")).publish()
    print(f"published to {root} (generation {newest.generation}, {len(newest.files)} files)")


if __name__ == "__main__":
    from avavla_ray.storage.console import call

    call(main, (Path, str), sys.argv[1:])
