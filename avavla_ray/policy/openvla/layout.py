"""Where a published checkpoint's tensors belong, as the checkpoint that was imported from it recorded it.

These records came with a folder that anybody may have written, and export writes files by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import PUBLISHED
from avavla_ray.policy.folder import SOURCE, CheckpointFolder
from avavla_ray.policy.openvla.source import INDEX, SINGLE, read_json
from avavla_ray.policy.tensors import is_weights_file, summary

_AGAIN = "import the published checkpoint again"


@dataclass(frozen=True)
class Layout:
    """Every name is that of a file directly in the folder, and no two things have the same.

    Attributes:
        weight_map: safetensors file of every tensor. components: (file, prefix of its tensors) of OFT's separate files.
    """

    weight_map: dict[str, str]
    components: dict[str, tuple[str, str]]


def recorded_layout(opened: CheckpointFolder, tensors: Iterable[str], components: Iterable[str]) -> Layout:
    """Of an imported checkpoint.

    Args:
        tensors, components: names of what the layout must have a place for; no more and no less.

    Raises:
        InputError: the records are broken, or name a file that cannot be.
    """
    layout = Layout(_weight_map(opened, set(tensors)), _components(opened, list(components)))
    written = [*set(layout.weight_map.values()), *(file for file, _ in layout.components.values())]
    taken = sorted({path.name for path in opened.sources()} & set(written))
    if taken or len(set(written)) < len(written):
        twice = taken or sorted({name for name in written if written.count(name) > 1})
        raise InputError(f"{opened.path}: {', '.join(twice)} would be written twice: {_AGAIN}")
    return layout


def _weight_map(opened: CheckpointFolder, tensors: set[str]) -> dict[str, str]:
    path = opened.path / SOURCE / INDEX
    if not path.is_file():
        return dict.fromkeys(sorted(tensors), SINGLE)
    index = read_json(path)
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"{path} has no weight_map: {_AGAIN}")
    problems = [f"{name} is in {file!r}" for name, file in found.items() if not is_weights_file(file, ".safetensors")]
    problems += [f"{name} is missing" for name in sorted(tensors - set(found))]
    problems += [f"{name} is unknown" for name in sorted(set(found) - tensors)]
    if problems:
        raise InputError(f"{path} is not that of the published checkpoint ({summary(problems)}): {_AGAIN}")
    return found


def _components(opened: CheckpointFolder, names: list[str]) -> dict[str, tuple[str, str]]:
    record: Any = opened.extra[PUBLISHED]
    known = record.get("components") if isinstance(record, dict) else None
    found = {}
    for name in names:
        about = known.get(name) if isinstance(known, dict) else None
        file, prefix = (about.get("file"), about.get("prefix")) if isinstance(about, dict) else (None, None)
        if not is_weights_file(file, ".pt") or not isinstance(prefix, str):
            raise InputError(f"{opened.path}: its manifest does not say what file {name} was ({about!r}): {_AGAIN}")
        found[name] = (file, prefix)
    return found
