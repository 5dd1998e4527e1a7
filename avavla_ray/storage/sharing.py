"""A folder below a run's output that other machines have to read while the run goes on."""

from __future__ import annotations

from pathlib import Path

from avavla_ray.storage.names import address_of


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
