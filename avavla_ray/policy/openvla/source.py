"""A published checkpoint folder: what it says it is, and whether its tensors are those that its sizes demand.

    config.json, preprocessor_config.json, tokenizer.json
    model.safetensors, or shards with model.safetensors.index.json
    dataset_statistics.json, or norm_stats in config.json
    proprio_projector--N_checkpoint.pt, action_head--N_checkpoint.pt    OFT only

Only headers are read here, and no code: safetensors and JSON hold data, and the .pt files are unpickled as weights.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics, read_statistics
from avavla_ray.policy.openvla.config import OpenVlaConfig, check_config
from avavla_ray.policy.openvla.key_map import component_entries, model_entries, unused_shapes
from avavla_ray.policy.openvla.shapes import model_shapes
from avavla_ray.policy.openvla.source_config import read_config
from avavla_ray.policy.tensors import Shape, differences, is_weights_file, read_shapes, read_types, summary

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
UNSUPPORTED = {
    "noisy_action_projector": "a diffusion head",
    "vision_backbone": "FiLM in the vision backbone",
}
AGAIN = "download it again"
CONVERT = "weights are float32 or bfloat16 here, convert them to one of these first"
_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Component:
    """One of OFT's separate files. prefix: "module." where the names have it."""

    file: str
    prefix: str
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """A checked folder.

    Attributes:
        config: of the model to be made of it. weight_map: file of every tensor, as the index has it.
        components: by the word that the name begins with. fresh: those that it lacks, and training has to start anew.
        statistics: by data set.
    """

    folder: Path
    config: OpenVlaConfig
    weight_map: dict[str, str]
    components: dict[str, Component]
    fresh: tuple[str, ...]
    statistics: dict[str, Statistics]


@dataclass(frozen=True)
class Parallel:
    """How to make OpenVLA-OFT of OpenVLA, as the start of a fine-tuning.

    Attributes:
        images: V. chunk: C. proprio_dim: P, 0 for no proprioception token.
    """

    images: int = 2
    chunk: int = 8
    proprio_dim: int = 8


def read_json(path: Path) -> Any:
    """Decoded JSON of a file that must be there.

    Raises:
        InputError: missing or not JSON.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: download the whole checkpoint folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): download it again") from error


def open_source(
    folder: str | Path,
    *,
    images: int | None = None,
    chunk: int | None = None,
    parallel: Parallel | None = None,
    crop: float = OpenVlaConfig.crop,
) -> Source:
    """Read and check a folder; no weights of the safetensors files are read yet.

    Args:
        images, chunk: V and C, which no file says; 2 and 8 with an action head, otherwise 1 and 1.
        parallel: turn OpenVLA into OpenVLA-OFT; its sizes instead of `images` and `chunk`.
        crop: share of the pictures' area that is cut out of their centre, which no file says.

    Raises:
        InputError: one line that lists everything missing, unknown, of another shape, or unsupported.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder that holds the checkpoint's config.json")
    weight_map = _weight_map(folder)
    shapes = _header(folder, weight_map)
    components = _components(folder)
    config = read_config(
        read_json(folder / "config.json"), read_json(folder / "preprocessor_config.json"), folder / "tokenizer.json",
        shapes, {name: {k: tuple(v.shape) for k, v in part.tensors.items()} for name, part in components.items()},
        images=images, chunk=chunk,
    )  # fmt: skip
    if parallel is not None:
        config = _parallel(folder, config, parallel)
    config = dataclasses.replace(config, crop=crop)
    check_config(config)
    _check(folder, config, shapes, components)
    fresh = tuple(name for name in component_entries(config) if name not in components)
    return Source(folder, config, weight_map, components, fresh, data_set_statistics(folder))


def _parallel(folder: Path, config: OpenVlaConfig, sizes: Parallel) -> OpenVlaConfig:
    if config.parallel:
        raise InputError(f"{folder} is OpenVLA-OFT, which decodes in parallel already: import it as it is")
    return dataclasses.replace(
        config, preset="openvla_oft", parallel=True, head_blocks=2, images=sizes.images, chunk=sizes.chunk,
        proprio_dim=sizes.proprio_dim,
    )  # fmt: skip


def _weight_map(folder: Path) -> dict[str, str]:
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not all(
            is_weights_file(name, ".safetensors") for name in weight_map.values()
        ):
            raise InputError(f"{folder / INDEX} has no weight_map of file names: download it again")
        missing = sorted({name for name in weight_map.values() if not (folder / name).is_file()})
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}: download the whole checkpoint folder")
        return weight_map
    if not (folder / SINGLE).is_file():
        adapter = (folder / "lora_adapter").is_dir()
        fix = "merge its LoRA adapter into the base model first" if adapter else "download the whole checkpoint folder"
        raise InputError(f"{folder} holds neither {INDEX} nor {SINGLE}: {fix}")
    return dict.fromkeys(read_shapes(folder / SINGLE, AGAIN), SINGLE)


def _header(folder: Path, weight_map: dict[str, str]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    problems = []
    for file in sorted(set(weight_map.values())):
        found = read_shapes(folder / file, AGAIN)
        listed = {name for name, place in weight_map.items() if place == file}
        if wrong := read_types(folder / file) - set(_TYPES):
            raise InputError(f"{folder / file} holds {', '.join(sorted(wrong))}: {CONVERT}")
        problems += [f"{file} lacks {name}" for name in sorted(listed - set(found))]
        problems += [f"{file} holds {name}, which {INDEX} does not place there" for name in sorted(set(found) - listed)]
        shapes |= found
    if problems:
        raise InputError(f"{folder} does not match its {INDEX} ({summary(problems)}): download both again")
    return shapes


def _components(folder: Path) -> dict[str, Component]:
    found: dict[str, Component] = {}
    for path in sorted(folder.glob("*--*checkpoint.pt")):
        name = path.name.split("--")[0]
        if name in UNSUPPORTED:
            raise InputError(f"{path} belongs to {UNSUPPORTED[name]}, which is not supported: use an L1 checkpoint")
        if name not in ("proprio_projector", "action_head"):
            raise InputError(f"{path} is no part of OpenVLA-OFT that is known here: take it out of the folder")
        if name in found:
            raise InputError(f"{folder} holds {found[name].file} and {path.name}: keep the one to be imported")
        found[name] = _component(path)
    return found


def _component(path: Path) -> Component:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged bytes end in is any of the interpreter's errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} does not hold weights ({reason}): download it again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(f"{path} does not hold weights by name: download it again")
    if wrong := {value.dtype for value in state.values()} - set(_TYPES.values()):
        raise InputError(f"{path} holds {', '.join(sorted(map(str, wrong)))}: {CONVERT}")
    prefix = "module." if state and all(name.startswith("module.") for name in state) else ""
    return Component(path.name, prefix, {name.removeprefix(prefix): value for name, value in state.items()})


def _check(folder: Path, config: OpenVlaConfig, shapes: dict[str, Shape], components: dict[str, Component]) -> None:
    ours = model_shapes(config)
    expected = {entry.source: entry.source_shape(ours) for entry in model_entries(config)} | unused_shapes(config)
    problems = differences(expected, shapes)
    for name in components:
        entries = component_entries(config)[name]
        found = {key: tuple(value.shape) for key, value in components[name].tensors.items()}
        wanted = {entry.source: entry.source_shape(ours) for entry in entries}
        problems += [f"{components[name].file}: {problem}" for problem in differences(wanted, found)]
    if problems:
        raise InputError(f"{folder} is not a checkpoint of this geometry ({summary(problems)}): download it again")


def data_set_statistics(folder: Path) -> dict[str, Statistics]:
    """By data set, from the folder's own file or its config.json.

    Raises:
        InputError: none in the folder, or unusable ones.
    """
    path = folder / "dataset_statistics.json"
    if path.is_file():
        found = read_json(path)
    else:
        config = read_json(folder / "config.json")
        found = config.get("norm_stats") if isinstance(config, dict) else None
    if not found:
        raise InputError(f"{folder} has neither {path.name} nor norm_stats in config.json: actions would have no units")
    return read_statistics(found, str(path))
