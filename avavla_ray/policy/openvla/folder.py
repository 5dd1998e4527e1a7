"""An OpenVLA model in this project's checkpoint format: a folder that is whole or absent.

    model-00001.safetensors ...     weights in the dtype that they came in, by this package's names
    model.safetensors.index.json    which tensor is in which file
    config.json                     OpenVlaConfig
    dataset_statistics.json         as OpenVLA lays it out, every data set
    tokenizer.json                  Llama's
    source/*                        the JSON files of the published checkpoint that this came from, for export
    manifest.json                   stage, provenance, and size and SHA-256 of the others; written last

Tensors named `unused.*` are those of the published checkpoint that no forward pass reads; export writes them back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from avavla_ray import normalisation
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, damage, fingerprint, write_json
from avavla_ray.policy.config_json import build
from avavla_ray.policy.openvla.config import OpenVlaConfig, check_config
from avavla_ray.policy.openvla.shapes import summary
from avavla_ray.policy.openvla.statistics import check_statistics
from avavla_ray.policy.tensors import save_tensors

FORMAT, VERSION = "avavla_ray.openvla", 1
CONFIG, INDEX, MANIFEST = "config.json", "model.safetensors.index.json", "manifest.json"
TOKENIZER, SOURCE = "tokenizer.json", "source"
SHARD_BYTES = 4 << 30
UNUSED = "unused."


@dataclass(frozen=True)
class OpenVlaFolder:
    """A checked folder, its weights still unread.

    Attributes:
        statistics: of every data set, in OpenVLA's layout; `pick_statistics` takes one. weight_map: file of every
            tensor. extra: what the writer kept. digest: SHA-256 over all files but the manifest.
    """

    path: Path
    config: OpenVlaConfig
    statistics: dict[str, Any]
    weight_map: dict[str, str]
    stage: str
    provenance: dict[str, Any]
    extra: dict[str, Any]
    digest: str

    def tensors(self, device: str = "cpu", unused: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, file by file; with `unused` also those kept for export."""
        for file in sorted(set(self.weight_map.values())):
            with safe_open(self.path / file, framework="pt", device=device) as stream:
                for name in stream.keys():  # noqa: SIM118
                    if unused or not name.startswith(UNUSED):
                        yield name, stream.get_tensor(name)


class _ShardWriter:
    """Collects tensors and writes a file whenever they fill one."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.weight_map: dict[str, str] = {}
        self.total = self._size = self._files = 0
        self._held: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        if self._held and self._size + tensor.nbytes > self.limit:
            self.flush()
        self._held[name] = tensor.detach().cpu().contiguous()
        self._size += tensor.nbytes
        self.total += tensor.nbytes

    def flush(self) -> None:
        if not self._held:
            return
        self._files += 1
        file = f"model-{self._files:05d}.safetensors"
        save_tensors(self._held, self.folder / file)
        self.weight_map |= dict.fromkeys(self._held, file)
        self._held, self._size = {}, 0


def write_folder(
    folder: str | Path,
    config: OpenVlaConfig,
    tensors: Iterable[tuple[str, Tensor]],
    statistics: dict[str, Any],
    tokenizer: Path,
    *,
    stage: str,
    provenance: dict[str, Any],
    source_files: Iterable[Path] = (),
    extra: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint, one file of weights in memory at a time; `folder` holds the old or the new one throughout.

    Args:
        tensors: of the model's state_dict, and those to keep for export under their `unused.` names.
        source_files: to be kept for export.

    Raises:
        InputError: the place cannot be written.
    """
    with atomic_path(folder) as temporary:
        (temporary / SOURCE).mkdir(parents=True)
        writer = _ShardWriter(temporary, shard_bytes)
        for name, tensor in tensors:
            writer.add(name, tensor)
        writer.flush()
        write_json(temporary / INDEX, {"metadata": {"total_size": writer.total}, "weight_map": writer.weight_map})
        write_json(temporary / CONFIG, dataclasses.asdict(config))
        write_json(temporary / normalisation.FILE_NAME, statistics)
        shutil.copyfile(tokenizer, temporary / TOKENIZER)
        for path in source_files:
            shutil.copyfile(path, temporary / SOURCE / path.name)
        members = sorted(path for path in temporary.rglob("*") if path.is_file())
        files = {path.relative_to(temporary).as_posix(): fingerprint(path) for path in members}
        manifest = {"format": FORMAT, "version": VERSION, "stage": stage, "files": files}
        write_json(temporary / MANIFEST, manifest | {"provenance": provenance, "extra": extra or {}})


def open_folder(folder: str | Path, verify: bool = True) -> OpenVlaFolder:
    """Read everything but the weights.

    Args:
        verify: check the hash of every file first, which reads all of them once.

    Raises:
        InputError: one line that lists everything missing, truncated, altered or foreign.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    files = manifest["files"]
    if verify:
        problems = [problem for name in sorted(files) if (problem := damage(folder / name, files[name]))]
    else:
        problems = [f"{name} is missing" for name in sorted(files) if not (folder / name).is_file()]
    if problems:
        raise InputError(f"checkpoint {folder} is damaged ({summary(problems)}): copy or write it again")
    try:
        config, index, statistics = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (CONFIG, INDEX, normalisation.FILE_NAME)
        )
        parsed = build(OpenVlaConfig, config, CONFIG)
        check_config(parsed)
        check_statistics(statistics, folder / normalisation.FILE_NAME)
        weight_map = dict(index["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"checkpoint {folder}: {error}") from error
    content = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    return OpenVlaFolder(
        folder, parsed, statistics, weight_map, manifest["stage"], manifest["provenance"], manifest["extra"],
        hashlib.sha256(content.encode()).hexdigest(),
    )  # fmt: skip


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no {MANIFEST}: give a folder that import_openvla or a training job wrote")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): copy or write the checkpoint again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is not of an OpenVLA model: run jobs/import_openvla.py on a published checkpoint first"
        )
    if manifest.get("version") != VERSION:
        raise InputError(f"{path} has version {manifest.get('version')}, this release reads {VERSION}: update")
    kinds = {"stage": str, "provenance": dict, "extra": dict, "files": dict}
    broken = [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]
    if "files" not in broken:
        entries = manifest["files"]
        needed = {CONFIG, INDEX, TOKENIZER, normalisation.FILE_NAME}
        broken += [f"files[{name!r}]" for name in sorted(needed - set(entries))]
        broken += [
            f"files[{name!r}]" for name, entry in entries.items()
            if not isinstance(entry, dict) or set(entry) != {"size", "sha256"} or ".." in Path(name).parts
            or Path(name).is_absolute()
        ]  # fmt: skip
    if broken:
        raise InputError(f"{path} lacks {', '.join(broken)}: copy or write the checkpoint again")
    return manifest
