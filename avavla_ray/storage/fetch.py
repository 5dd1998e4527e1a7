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
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place


def main(uri: str, folder: Path) -> None:
    """Bring it into a folder; of a whole run only what differs.

    Raises:
        InputError: nothing is there; the folder holds something; the store refuses or does not answer.
    """
    root = Place.of(uri)
    if read_manifest(root).generation:
        newest, _ = fetch(root, folder)
        print(f"{folder} holds generation {newest.generation} of {root} ({len(newest.files)} files)")
        return
    if folder.exists():
        raise InputError(f"{folder} is there already: give another")
    copy = local_copy(uri)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if copy.is_dir() else shutil.copyfile)(copy, folder)
    print(f"{folder} holds {root}")


if __name__ == "__main__":
    from avavla_ray.storage.console import call

    call(main, (str, Path), sys.argv[1:])
