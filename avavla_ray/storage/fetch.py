"""Bring a published folder, or a part of it, from a store.

python -m avavla_ray.storage.fetch URI FOLDER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.fetching import fetch
from avavla_ray.storage.manifest import Manifest, read_manifest
from avavla_ray.storage.notes import Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.staging import BRINGING


def main(uri: str, folder: Path) -> None:
    """Bring it into a folder; of a whole run only what differs from what was fetched before, and what the run has no
    more is removed.

    Raises:
        InputError: nothing is there; the folder holds what was not fetched; the store refuses or does not answer.
    """
    root = Place.of(uri)
    if read_manifest(root).generation:
        newest = _whole(root, folder)
        print(f"{folder} holds generation {newest.generation} of {root} ({len(newest.files)} files)")
        return
    if folder.exists():
        raise InputError(f"{folder} is there already: give another")
    copy = local_copy(uri)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if copy.is_dir() else shutil.copyfile)(copy, folder)
    print(f"{folder} holds {root}")


def _whole(root: Place, folder: Path) -> Manifest:
    """The newest generation and nothing of older ones; a file beside the folder notes what is of them."""
    notes = Notes(folder.parent / f".{folder.name}.fetched.json")
    noted = notes.read()
    if not noted and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds what was not fetched from a store: give another folder, or an empty one")
    before = {name: mark for marks in noted.values() for name, mark in marks.items()}
    notes.write({BRINGING: before})  # so that the same command goes on where this one is killed
    newest, marks = fetch(root, folder)
    for name in before.keys() - newest.files.keys():
        (folder / name).unlink(missing_ok=True)
    notes.write({newest.seal: marks})
    return newest


if __name__ == "__main__":
    from avavla_ray.storage.console import call

    call(main, (str, Path), sys.argv[1:])
