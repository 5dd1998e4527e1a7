"""A published checkpoint folder: what it says it is, and whether its tensors are those that its sizes demand.

    config.json, preprocessor_config.json, tokenizer.json
    model.safetensors, or shards with model.safetensors.index.json
    dataset_statistics.json, or norm_stats in config.json
    proprio_projector--N_checkpoint.pt, action_head--N_checkpoint.pt    OFT only

Only headers are read here, and no code: safetensors and JSON hold data, and the .pt files are unpickled as weights.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.key_map import component_entries, model_entries, unused_shapes
from avavla_ray.policy.openvla.shapes import Shape, differences, model_shapes, summary
from avavla_ray.policy.openvla.source_config import read_config
from avavla_ray.policy.openvla.statistics import check_statistics

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
UNSUPPORTED = {
    "noisy_action_projector": "a diffusion head",
    "vision_backbone": "FiLM in the vision backbone",
}


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
        weight_map: file of every tensor, as the index has it. components: by the word that the name begins with.
        statistics: of every data set, as OpenVLA lays them out.
    """

    folder: Path
    config: OpenVlaConfig
    weight_map: dict[str, str]
    components: dict[str, Component]
    statistics: dict[str, Any]


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


def open_source(folder: str | Path, *, images: int | None = None, chunk: int | None = None) -> Source:
    """Read and check a folder; no weights of the safetensors files are read yet.

    Args:
        images, chunk: V and C, which no file says; 2 and 8 with an action head, otherwise 1 and 1.

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
    _check(folder, config, shapes, components)
    return Source(folder, config, weight_map, components, _statistics(folder))


def _weight_map(folder: Path) -> dict[str, str]:
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
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
    return dict.fromkeys(_shapes(folder / SINGLE), SINGLE)


def _shapes(path: Path) -> dict[str, Shape]:
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} does not hold weights ({error}): download it again") from error


def _header(folder: Path, weight_map: dict[str, str]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    problems = []
    for file in sorted(set(weight_map.values())):
        found = _shapes(folder / file)
        listed = {name for name, place in weight_map.items() if place == file}
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
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path} does not hold weights ({str(error).splitlines()[0]}): download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} does not hold weights by name: download it again")
    prefix = "module." if state and all(name.startswith("module.") for name in state) else ""
    return Component(path.name, prefix, {name.removeprefix(prefix): value for name, value in state.items()})


def _check(folder: Path, config: OpenVlaConfig, shapes: dict[str, Shape], components: dict[str, Component]) -> None:
    ours = model_shapes(config)
    expected = {entry.source: entry.source_shape(ours) for entry in model_entries(config)} | unused_shapes(config)
    problems = differences(expected, shapes)
    for name, entries in component_entries(config).items():
        found = {key: tuple(value.shape) for key, value in components[name].tensors.items()}
        wanted = {entry.source: entry.source_shape(ours) for entry in entries}
        problems += [f"{components[name].file}: {problem}" for problem in differences(wanted, found)]
    if problems:
        raise InputError(f"{folder} is not a checkpoint of this geometry ({summary(problems)}): download it again")


def _statistics(folder: Path) -> dict[str, Any]:
    path = folder / "dataset_statistics.json"
    found = read_json(path) if path.is_file() else read_json(folder / "config.json").get("norm_stats")
    if not found:
        raise InputError(f"{folder} has neither {path.name} nor norm_stats in config.json: actions would have no units")
    check_statistics(found, path)
    return found
