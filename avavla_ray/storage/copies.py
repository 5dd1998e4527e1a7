"""Local copies of what is read from a store: a checkpoint, a preset, a recipe.

    CACHE/copies/HASH/NAME      HASH is that of the content, or of what the store says of it (sizes, times)

A copy is made whole, under a lock, and is then the same for all processes of the machine.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, cache_folder, sha256
from avavla_ray.storage.fetching import bring
from avavla_ray.storage.manifest import NAME, Manifest, find_snapshot
from avavla_ray.storage.names import remember, tidy
from avavla_ray.storage.place import Place
from avavla_ray.storage.progress import Telling, all_at_once
from avavla_ray.storage.stores import NothingThere
from avavla_ray.storage.transfers import Entry, attempt, details, download, read_bytes
from avavla_ray.training.run_lock import RunLock

ROUNDS = 5


def local_copy(uri: str) -> Path:
    """A file or folder of a store on this machine's disk.

    It may be a part of a published run (a checkpoint at s3://BUCKET/RUN/checkpoint), a checkpoint that was copied
    there as it is, which its own manifest verifies, or any other folder or file, of which sizes are compared.

    Raises:
        InputError: nothing is there; damaged; the disk is full; the store does not answer or refuses.
    """
    place = Place.of(tidy(uri))
    for _ in range(ROUNDS):
        try:
            path = _copy(place)
        except FileNotFoundError:  # a newer generation has replaced it meanwhile
            continue
        remember(path, str(place), tidy(uri))
        return path
    raise InputError(f"{place} changes faster than it can be brought here: try again when the run has ended")


def _copy(place: Place) -> Path:
    found = find_snapshot(place)
    if found is not None:
        root, manifest, inside = found
        if files := manifest.below(inside):
            return _of_snapshot(place, root, manifest, inside, files)
        known = ", ".join(sorted({name.partition("/")[0] for name in manifest.files}))
    if place.is_file():
        return _of_file(place)
    files = _of_checkpoint(place) or details(place)
    if not files:
        if found is not None:
            raise NothingThere(f"there is nothing at {place}: the run at {root} has {known}")
        place.is_folder()  # says so where there is no bucket
        raise NothingThere(f"there is nothing at {place}: correct the address")
    told = json.dumps([str(place), sorted((name, *entry.values()) for name, entry in files.items())])

    def fill(folder: Path) -> None:
        telling = Telling(f"bringing {place}", sum(entry["size"] or 0 for entry in files.values()))
        all_at_once(lambda name: download(place / name, folder / name, files[name], telling.passed), files)
        telling.end()

    return _kept(place.name, hashlib.sha256(told.encode()).hexdigest(), files, fill)


def _of_snapshot(place: Place, root: Place, manifest: Manifest, inside: str, files: dict[str, Entry]) -> Path:
    strip = f"{inside}/" if inside else ""
    content = {name.removeprefix(strip): entry for name, entry in files.items()}
    told = json.dumps(sorted((name, entry["sha256"]) for name, entry in content.items()))

    def fill(path: Path) -> None:
        if list(files) == [inside]:  # a single file
            download(root / manifest.where(inside), path, files[inside])
        else:
            bring(root, manifest, path, files, strip=strip)

    single = {} if list(files) == [inside] else content
    return _kept(place.name, hashlib.sha256(told.encode()).hexdigest(), single, fill)


def _of_file(place: Place) -> Path:
    """A single file, whose content is known when it is here; it may be larger than the memory."""
    size = attempt(place, lambda: place.system.get_file_info(place.path).size)
    home = cache_folder().absolute() / "copies"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".", suffix=".tmp") as beside:
        brought = Path(beside) / "content"
        download(place, brought, {"size": size})
        return _kept(place.name, sha256(brought), {}, brought.rename)


def _of_checkpoint(place: Place) -> dict[str, Entry]:
    """What a checkpoint's own manifest says of its files; {} where there is none. Itself has no hash in it."""
    content = read_bytes(place / NAME)
    if content is None:
        return {}
    try:
        files: dict[str, Any] = dict(json.loads(content)["files"])
        named = {name: {"size": int(entry["size"]), "sha256": str(entry["sha256"])} for name, entry in files.items()}
    except (ValueError, KeyError, TypeError):
        return {}
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in named):
        return {}
    return {**named, NAME: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}


def _kept(name: str, digest: str, files: dict[str, Entry], fill: Any) -> Path:
    """The copy of this content: the one that is here, or a new one."""
    home = cache_folder().absolute() / "copies" / digest[:16]
    path = home / (name or "copy")
    with RunLock(home, patience=3600.0):
        if not _whole(path, files):
            with atomic_path(path) as temporary:
                fill(temporary)
    return path


def _whole(path: Path, files: dict[str, Entry]) -> bool:
    if not files:
        return path.is_file()
    try:
        return all((path / name).stat().st_size == entry["size"] for name, entry in files.items())
    except OSError:
        return False
