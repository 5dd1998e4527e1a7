"""What other machines have to read: a folder below a run's output while the run goes on, or what a job was given."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from avavla_ray.storage.names import address_of
from avavla_ray.storage.stores import scheme_of, without_secrets


def portable(path: str | Path) -> str:
    """How a process of another machine finds what this one reads at `path`, for `here`: by its address, where it is a
    copy of what lies in a store, since other machines have no such copy; else on a file system that all share."""
    return address_of(path) or str(Path(path).absolute())


def holds_keys(given: str | Path) -> bool:
    """Whether the address that was given, or whose copy lies at the local path, has a password or keys in it."""
    address = address_of(given) or str(given)
    if scheme_of(address) is None:
        return False
    whole, shown = urlsplit(address), urlsplit(without_secrets(address))
    names = [{name for name, _ in parse_qsl(each.query)} for each in (whole, shown)]
    return whole.netloc != shown.netloc or names[0] != names[1]


def here(where: str | Path) -> Path:
    """What `portable` named, on this machine.

    Raises:
        InputError: as `local_copy`.
    """
    if scheme_of(str(where)) is None:
        return Path(where)
    from avavla_ray.storage.copies import local_copy

    return local_copy(str(where))


def shared(folder: Path) -> str:
    """Where processes of other machines find it: its address, published now as a snapshot of its own, where the run's
    output is in a store; else the folder itself, on a file system that all machines share.

    Raises:
        InputError: the store does not answer or refuses.
    """
    address = address_of(folder)
    if address is None:
        return str(folder)
    from avavla_ray.storage.freeze import APART
    from avavla_ray.storage.notes import Notes
    from avavla_ray.storage.place import Place
    from avavla_ray.storage.publisher import Publisher

    if folder.is_dir():  # else it was published from another machine
        (folder / APART).touch()  # the run's own snapshot leaves it out
        Publisher(folder, Place.of(address), Notes(folder.with_name(f".{folder.name}.shared.tmp"))).publish()
    return address


def recover(folder: Path) -> None:
    """Bring what `shared` published from another machine, where this one has no such folder.

    Raises:
        InputError: the store does not answer or refuses.
    """
    address = address_of(folder)
    if address is None or folder.is_dir():
        return
    from avavla_ray.files import atomic_path
    from avavla_ray.storage.fetching import fetch
    from avavla_ray.storage.freeze import APART
    from avavla_ray.storage.manifest import read_manifest
    from avavla_ray.storage.place import Place

    root = Place.of(address)
    if read_manifest(root).generation:
        with atomic_path(folder) as temporary:  # whole or not at all: half a data set would be gone on with
            fetch(root, temporary)
            (temporary / APART).touch()
