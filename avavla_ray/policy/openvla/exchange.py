"""Published OpenVLA checkpoints in, and out again, shard by shard."""

from __future__ import annotations

import io
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, check_space
from avavla_ray.policy.openvla import source as published
from avavla_ray.policy.openvla.folder import (
    SHARD_BYTES,
    SOURCE,
    TOKENIZER,
    UNUSED,
    OpenVlaFolder,
    open_folder,
    write_folder,
)
from avavla_ray.policy.openvla.key_map import Entry, component_entries, model_entries, unused_shapes
from avavla_ray.policy.openvla.source import Source
from avavla_ray.policy.tensors import save_tensors

Tick = Callable[[], None]


def import_checkpoint(
    source: Source,
    output: str | Path,
    *,
    provenance: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
    tick: Tick = lambda: None,
) -> None:
    """Write a published checkpoint in this project's format, weights unchanged; memory stays near one file's worth.

    Args:
        tick: called after every source tensor; there are `count_tensors(source)`.

    Raises:
        InputError: the output cannot be written.
    """
    files = {*source.weight_map.values(), *(part.file for part in source.components.values())}
    check_space(output, sum((source.folder / file).stat().st_size for file in files))
    kept = [
        path for path in sorted(source.folder.iterdir()) if path.suffix == ".json" or path.name == "tokenizer.model"
    ]
    components = {name: {"file": part.file, "prefix": part.prefix} for name, part in source.components.items()}
    write_folder(
        output, source.config, _converted(source, tick), source.statistics, source.folder / TOKENIZER,
        stage="import", provenance=provenance, source_files=kept, extra={"components": components},
        shard_bytes=shard_bytes,
    )  # fmt: skip


def count_tensors(source: Source) -> int:
    """Tensors of a published checkpoint, the separate files' included."""
    return len(source.weight_map) + sum(len(part.tensors) for part in source.components.values())


def _converted(source: Source, tick: Tick) -> Iterator[tuple[str, Tensor]]:
    entries = {entry.source: entry for entry in model_entries(source.config)}
    for file in sorted(set(source.weight_map.values())):
        with safe_open(source.folder / file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118
                tensor = stream.get_tensor(name)
                if name in entries:
                    yield from entries[name].convert(tensor).items()
                else:
                    yield UNUSED + name, tensor
                tick()
    for name, parts in component_entries(source.config).items():
        for entry in parts:
            yield from entry.convert(source.components[name].tensors[entry.source]).items()
            tick()


def export_checkpoint(folder: str | Path, output: str | Path, *, tick: Tick = lambda: None) -> None:
    """Write a checkpoint back in the published layout: names, shapes, dtypes, shards and separate files as they came.

    Args:
        tick: called after every tensor of the published layout.

    Raises:
        InputError: the folder is damaged, or does not stem from a published checkpoint.
    """
    opened = open_folder(folder)
    entries, unused = {entry.source: entry for entry in model_entries(opened.config)}, unused_shapes(opened.config)
    lacking = [name for name in unused if UNUSED + name not in opened.weight_map]
    if lacking or not (opened.path / SOURCE / "config.json").is_file():
        raise InputError(f"{folder} was not imported from a published checkpoint, and that layout needs parts it lacks")
    check_space(output, sum((opened.path / file).stat().st_size for file in set(opened.weight_map.values())))
    weight_map = _published_map(opened, [*entries, *unused])
    shards: dict[str, list[str]] = defaultdict(list)
    for name, file in weight_map.items():
        shards[file].append(name)
    with atomic_path(output) as temporary:
        shutil.copytree(opened.path / SOURCE, temporary)
        for file in sorted(shards):
            held = {}
            for name in sorted(shards[file]):
                held[name] = _restored(opened, entries[name]) if name in entries else _read(opened, UNUSED + name)
                tick()
            save_tensors(held, temporary / file)
        for name, parts in component_entries(opened.config).items():
            about = opened.extra["components"][name]
            state = {about["prefix"] + entry.source: _restored(opened, entry).clone() for entry in parts}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            # Not by torch itself, which reports a full disk as a RuntimeError about positions.
            (temporary / Path(about["file"]).name).write_bytes(buffer.getbuffer())
            for _ in state:
                tick()


def count_published(opened: OpenVlaFolder) -> int:
    """Tensors that `export_checkpoint` writes."""
    parts = component_entries(opened.config).values()
    return len(model_entries(opened.config)) + len(unused_shapes(opened.config)) + sum(map(len, parts))


def _published_map(opened: OpenVlaFolder, names: list[str]) -> dict[str, str]:
    index = opened.path / SOURCE / published.INDEX
    if not index.is_file():
        return dict.fromkeys(names, published.SINGLE)
    weight_map = published.read_json(index)["weight_map"]
    return {name: weight_map[name] for name in names}


def _read(opened: OpenVlaFolder, name: str) -> Tensor:
    with safe_open(opened.path / opened.weight_map[name], framework="pt") as stream:
        return stream.get_tensor(name)


def _restored(opened: OpenVlaFolder, entry: Entry) -> Tensor:
    return entry.restore(lambda name: _read(opened, name))
