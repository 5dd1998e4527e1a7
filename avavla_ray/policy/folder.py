"""The files of a checkpoint: a folder that is whole or absent, and that can be checked before it is believed.

    model.safetensors               weights; or, of more than `shard_bytes`, model-00001.safetensors ... with
    model.safetensors.index.json    which tensor is in which file
    config.json                     the policy's configuration
    dataset_statistics.json         units of actions and proprioception, as OpenVLA lays them out, one or many data sets
    tokenizer.json                  of a policy with a tokenizer of its own
    source/*                        files of the published checkpoint that it stems from, for export
    manifest.json                   stage, provenance, and size and SHA-256 of the others; written last

Tensors named `unused.*` are those of a published checkpoint that no forward pass reads; export writes them back.
Reading never runs code: safetensors and JSON hold data only. What the files mean is `policy/checkpoint.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, damage, fingerprint, write_json
from avavla_ray.normalisation import FILE_NAME as STATISTICS
from avavla_ray.policy.tensors import Shape, ShardWriter, read_shapes, read_tensor, summary

FORMAT, VERSION = "avavla_ray.policy", 2
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER, SOURCE, MANIFEST = "config.json", "tokenizer.json", "source", "manifest.json"
SHARD_BYTES = 4 << 30
UNUSED = "unused."
AGAIN = "copy or write the checkpoint again"


@dataclass(frozen=True)
class CheckpointFolder:
    """A checked folder, its weights still unread.

    Attributes:
        config, statistics: decoded JSON. tokenizer: text of tokenizer.json, "" without one.
        shapes: of every tensor. weight_map: the file of every tensor.
        stage, provenance, extra: what the writer said of it.
        digest: SHA-256 over all files but the manifest and those kept for export: equal digests act alike.
    """

    path: Path
    config: Any
    statistics: Any
    tokenizer: str
    shapes: dict[str, Shape]
    weight_map: dict[str, str]
    stage: str
    provenance: dict[str, Any]
    extra: dict[str, Any]
    digest: str

    def read(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """One tensor; on the CPU possibly a view of the mapped file.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.weight_map:
            raise InputError(f"checkpoint {self.path}: {name} is missing: {AGAIN}")
        return read_tensor(self.path / self.weight_map[name], name, device)

    def unused(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are kept for export only."""
        for name in self.weight_map:
            if name.startswith(UNUSED):
                yield name, self.read(name)

    def sources(self) -> list[Path]:
        """The files that are kept for export."""
        return sorted((self.path / SOURCE).iterdir()) if (self.path / SOURCE).is_dir() else []


def write_folder(
    folder: str | Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    config: Any,
    statistics: Any,
    tokenizer: str = "",
    sources: Iterable[Path] = (),
    stage: str,
    provenance: dict[str, Any],
    extra: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint, one file of weights in memory at a time; `folder` holds the old or the new one
    (`atomic_path`).

    Args:
        tensors: by name, in the dtype to be kept. config, statistics: JSON-ready.
        tokenizer: text of tokenizer.json. sources: files to keep for export.

    Raises:
        InputError: the place cannot be written.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _write_weights(temporary, tensors, shard_bytes)
        write_json(temporary / CONFIG, config)
        write_json(temporary / STATISTICS, statistics)
        if tokenizer:
            (temporary / TOKENIZER).write_bytes(tokenizer.encode())
        for path in sources:
            (temporary / SOURCE).mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / SOURCE / path.name)
        members = sorted(path for path in temporary.rglob("*") if path.is_file())
        files = {path.relative_to(temporary).as_posix(): fingerprint(path) for path in members}
        manifest = {"format": FORMAT, "version": VERSION, "stage": stage, "files": files}
        write_json(temporary / MANIFEST, manifest | {"provenance": provenance, "extra": extra or {}})


def _write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> None:
    writer = ShardWriter(folder, shard_bytes)
    for name, tensor in tensors:
        writer.add(name, tensor)
    writer.flush()
    files = set(writer.weight_map.values())
    if len(files) == 1:
        (folder / files.pop()).rename(folder / WEIGHTS)
        return
    write_json(folder / INDEX, {"metadata": {"total_size": writer.total}, "weight_map": writer.weight_map})


def open_folder(folder: str | Path, verify: bool = True) -> CheckpointFolder:
    """Read everything but the weights.

    Args:
        verify: check the hash of every file first, which reads all of them once; otherwise only their sizes.

    Raises:
        InputError: one line that lists everything missing, truncated, altered or foreign.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    files = manifest["files"]
    problems = [problem for name in sorted(files) if (problem := damage(folder / name, files[name], content=verify))]
    if problems:
        raise InputError(f"checkpoint {folder} is damaged ({summary(problems)}): {AGAIN}")
    try:
        config, statistics = (json.loads((folder / name).read_text("utf-8")) for name in (CONFIG, STATISTICS))
        tokenizer = (folder / TOKENIZER).read_bytes().decode() if TOKENIZER in files else ""
    except ValueError as error:
        raise InputError(f"checkpoint {folder}: {error}") from error
    weight_map, shapes = _weights(folder, files)
    content = "".join(
        f"{name} {files[name]['sha256']}\n" for name in sorted(files) if not name.startswith(f"{SOURCE}/")
    )
    return CheckpointFolder(
        folder, config, statistics, tokenizer, shapes, weight_map, manifest["stage"], manifest["provenance"],
        manifest["extra"], hashlib.sha256(content.encode()).hexdigest(),
    )  # fmt: skip


def _weights(folder: Path, files: dict[str, Any]) -> tuple[dict[str, str], dict[str, Shape]]:
    """File and shape of every tensor, from the files' own headers; the index, if any, must say the same."""
    names = {WEIGHTS}
    index = None
    if INDEX in files:
        try:
            index = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
            # A file that the manifest does not vouch for is not read, wherever it may be.
            names = set(index.values())
            if not names <= set(files):
                raise KeyError(f"{sorted(names - set(files))} are not in the manifest")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / INDEX} does not say where the weights are ({error!r}): {AGAIN}") from error
    weight_map: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for name in sorted(names):
        found = read_shapes(folder / name, AGAIN)
        weight_map |= dict.fromkeys(found, name)
        shapes |= found
    if index is not None and index != weight_map:
        differing = sorted(name for name in {*index, *weight_map} if index.get(name) != weight_map.get(name))
        raise InputError(f"{folder} does not match its {INDEX} ({summary(differing)}): {AGAIN}")
    return weight_map, shapes


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"there is no checkpoint at {folder}: give the folder that a training job wrote")
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder} holds no {MANIFEST}: it is not a checkpoint, was copied before it was complete, or is a "
            f"published one that jobs/import_openvla.py has to read first"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): {AGAIN}") from error
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if form not in (FORMAT, "avavla_ray.openvla"):
        raise InputError(f"{path} was not written by this project: give the folder that a training job wrote")
    if manifest.get("version") != VERSION:
        version = manifest.get("version")
        fix = "train the policy or import the published checkpoint again" if version == 1 else "update"
        raise InputError(f"{path} has version {version}, this release reads {VERSION}: {fix}")
    kinds = {"stage": str, "provenance": dict, "extra": dict, "files": dict}
    broken = [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]
    if "files" not in broken:
        broken += [f"files[{name!r}]" for name in _bad_entries(manifest["files"])]
    if broken:
        raise InputError(f"{path} lacks {', '.join(broken)}: {AGAIN}")
    return manifest


def _bad_entries(files: dict[str, Any]) -> list[str]:
    """Files that the manifest must list and does not, or lists in a form, or at a place, that no writer gives."""
    needed = [CONFIG, STATISTICS] + ([] if INDEX in files else [WEIGHTS])
    bad = [name for name in needed if name not in files]
    for name, entry in files.items():
        parts = PurePosixPath(name).parts
        inside = parts and ".." not in parts and not PurePosixPath(name).is_absolute() and "\\" not in name
        if not inside or not isinstance(entry, dict) or set(entry) != {"size", "sha256"}:
            bad.append(name)
    return bad
