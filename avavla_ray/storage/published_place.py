"""Reading a published folder where it lies: random access, without a copy."""

from __future__ import annotations

from typing import Any

from avavla_ray.storage.manifest import find_snapshot
from avavla_ray.storage.place import Place


def published(place: Place, wanted: str) -> Place:
    """The same place; where it is a part of a published folder, with the files of the newest generation in it.

    Args:
        wanted: a file that is looked for first: where it lies there plainly, nothing is published.

    Raises:
        InputError: the store does not answer or refuses.
    """
    if place.local or (place / wanted).is_file():
        return place
    found = find_snapshot(place)
    if found is None:
        return place
    root, manifest, inside = found
    strip = f"{inside}/" if inside else ""
    at = {name.removeprefix(strip): manifest.where(name) for name in manifest.below(inside)}
    return PublishedPlace(root, str(place), at)


class PublishedPlace(Place):
    """A place whose files lie where the manifest says; it stays at the generation that it was made of."""

    def __init__(self, snapshot: Place, shown: str, at: dict[str, str], inside: str = "") -> None:
        """
        Args:
            snapshot: root of the snapshot. at: path from there, by the path from this place.
        """
        super().__init__(snapshot._root, shown, inside)
        self._snapshot, self._at = snapshot, at

    def __truediv__(self, name: str) -> Place:
        return PublishedPlace(self._snapshot, self._shown, self._at, f"{self._inside}/{name}" if self._inside else name)

    def __reduce__(self) -> Any:
        return PublishedPlace, (self._snapshot, self._shown, self._at, self._inside)

    def is_file(self) -> bool:
        return self._inside in self._at

    def is_folder(self) -> bool:
        return not self._inside or any(name.startswith(f"{self._inside}/") for name in self._at)

    @property
    def system(self) -> Any:
        return self._snapshot.system

    @property
    def path(self) -> str:
        return f"{self._snapshot.path}/{self._at.get(self._inside, self._inside)}"
