"""The manifest of a snapshot: which files make up the newest generation of a folder in a store, and where each lies.

    ROOT/manifest.json                  written last; a reader that has it has one whole generation
    ROOT/v000012-1f0c9a33/REL/PATH      what generation 12 brought; names that no other generation uses

A file that did not change stays where an older generation put it. Seals and hashes tell damage, not forgery.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import StoreUnreachable
from avavla_ray.storage.transfers import read_bytes, write_bytes

NAME, FORMAT, VERSION = "manifest.json", "avavla_ray.snapshot", 1
FOLDER = re.compile(r"v(\d{6,})-[0-9a-f]{8}")
_TORN_SECONDS = (0.2, 1.0, 3.0)  # on file systems that show a file while it is written


class Foreign(InputError):
    """A manifest that is no snapshot's, or of another release."""


@dataclass(frozen=True)
class Manifest:
    """One generation.

    Attributes:
        files: {"at": folder, "size", "sha256"} of each file, by its path from the root.
        outages: when the store did not answer for long: {"from", "to", "reason"}.
    """

    generation: int = 0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    outages: tuple[dict[str, Any], ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "version": VERSION, "generation": self.generation, "files": self.files,
            "outages": list(self.outages),
        }  # fmt: skip

    @property
    def seal(self) -> str:
        """SHA-256 of what it says; "" of none."""
        return hashlib.sha256(json.dumps(self.content).encode()).hexdigest() if self.generation else ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry["size"] for entry in self.files.values())

    def where(self, name: str) -> str:
        """Path from the root at which a file lies. Raises KeyError for one that the generation does not have."""
        return f"{self.files[name]['at']}/{name}"

    def below(self, folder: str) -> dict[str, dict[str, Any]]:
        """The files of a folder, or the one file of that name, by their whole paths."""
        if not folder:
            return self.files
        return {name: entry for name, entry in self.files.items() if name == folder or name.startswith(f"{folder}/")}


def read_manifest(root: Place) -> Manifest:
    """The newest generation; an empty one where nothing was published.

    Raises:
        Foreign: what is there is no snapshot, or of a newer release. InputError: damaged, or the store does not answer.
    """
    place = root / NAME
    for pause in (*_TORN_SECONDS, None):
        content = read_bytes(place)
        if content is None:
            return Manifest()
        try:
            return _parse(content, place)
        except Foreign:
            raise
        except InputError:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def write_manifest(root: Place, manifest: Manifest) -> None:
    """From now on readers see this generation."""
    content = {**manifest.content, "seal": manifest.seal}
    write_bytes(root / NAME, json.dumps(content, indent=0).encode())


def _parse(content: bytes, place: Place) -> Manifest:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise InputError(f"{place} is damaged ({error}): publish the folder again from where it is whole") from error
    form = found.get("format") if isinstance(found, dict) else None
    if form != FORMAT:
        raise Foreign(f"{place} is of something else ({form}): give the address of a run, or an empty one")
    if found.get("version") != VERSION:
        raise Foreign(f"{place} has version {found.get('version')}, this release reads {VERSION}: update")
    try:
        manifest = Manifest(found["generation"], found["files"], tuple(found["outages"]))
        broken = found["seal"] != manifest.seal or any(map(_wrong, manifest.files.items()))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place} is damaged ({error!r}): publish the folder again from where it is whole") from error
    if broken:
        raise InputError(f"{place} was altered after it was written: publish the folder again from where it is whole")
    return manifest


def _wrong(item: tuple[str, dict[str, Any]]) -> bool:
    """Whether an entry is one that no publisher writes: above all a path that leads out of the folder."""
    name, entry = item
    path = PurePosixPath(name)
    inside = path.parts and ".." not in path.parts and not path.is_absolute() and str(path) == name
    return not inside or set(entry) != {"at", "size", "sha256"} or not FOLDER.fullmatch(entry["at"])


def find_snapshot(place: Place) -> tuple[Place, Manifest, str] | None:
    """The snapshot that a place lies in: its root, its newest generation, and the path from there; None without one.

    Raises:
        InputError: the store does not answer or refuses.
    """
    root: Place | None = place
    inside: list[str] = []
    while root is not None:
        try:
            manifest = read_manifest(root)
        except Foreign:  # a checkpoint's own, say
            manifest = Manifest()
        except StoreUnreachable:
            raise
        except InputError:
            if not inside:
                raise
            manifest = Manifest()  # of what is further up nothing may be seen, maybe
        if manifest.generation:
            return root, manifest, "/".join(reversed(inside))
        inside.append(root.name)
        root = root.up()
    return None
