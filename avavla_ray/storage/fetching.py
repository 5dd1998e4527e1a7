"""Bringing a snapshot, or a part of it, from a store into a local folder: only what differs, each file verified."""

from __future__ import annotations

from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import check_space, sha256
from avavla_ray.storage.freeze import scan
from avavla_ray.storage.manifest import Manifest, read_manifest
from avavla_ray.storage.notes import Marks
from avavla_ray.storage.place import Place
from avavla_ray.storage.progress import Telling, all_at_once
from avavla_ray.storage.transfers import Entry, download

ROUNDS = 10


def fetch(root: Place, folder: Path, *, exact: bool = False) -> tuple[Manifest, Marks]:
    """Bring the newest generation of a snapshot.

    Args:
        exact: remove what the generation does not have.

    Returns:
        The generation, and the marks of its files in the folder.

    Raises:
        InputError: nothing is there; damaged; the disk is full; the store does not answer or refuses.
    """
    for _ in range(ROUNDS):
        manifest = read_manifest(root)
        if not manifest.generation:
            raise InputError(f"nothing is published at {root}: give the address of a run")
        try:
            bring(root, manifest, folder, manifest.files)
        except FileNotFoundError:  # replaced by two newer generations meanwhile; what is here already stays
            continue
        here = scan(folder)
        if exact:
            for name in here.keys() - manifest.files.keys():
                (folder / name).unlink(missing_ok=True)
        return manifest, {name: here[name] for name in manifest.files if name in here}
    raise InputError(f"{root} is published faster than it can be brought here: try again when the run has ended")


def bring(
    root: Place,
    manifest: Manifest,
    folder: Path,
    files: dict[str, Entry],
    *,
    strip: str = "",
) -> None:
    """Bring some files of a generation; those that are here already with the same content stay.

    Args:
        strip: start of their names that is left out here.

    Raises:
        FileNotFoundError: the store has one of them no more. The rest as `fetch`.
    """
    missing = [name for name in files if not _is_here(folder / name.removeprefix(strip), files[name])]
    total = sum(files[name]["size"] for name in missing)
    check_space(folder, total)
    telling = Telling(f"bringing {len(missing)} files from {root}", total)

    def get(name: str) -> None:
        download(root / manifest.where(name), folder / name.removeprefix(strip), files[name], telling.passed)

    all_at_once(get, missing)
    telling.end()


def _is_here(path: Path, entry: Entry) -> bool:
    try:
        return path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return False
