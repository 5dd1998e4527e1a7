"""Safetensors files: written whole or reported, read one tensor at a time, and compared by name and shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avavla_ray.errors import InputError

Shape = tuple[int, ...]


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write contiguous CPU tensors.

    Raises:
        OSError: the disk is full or the place cannot be written; `files.atomic_path` words it for people.
    """
    # safetensors makes files that only their owner can read; ours get the rights that any new file gets.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(path)) from error


def read_shapes(path: Path, fix: str) -> dict[str, Shape]:
    """Shape of every tensor in a file, from its header.

    Args:
        fix: what to do about a broken file; ends the message.

    Raises:
        InputError: the file does not hold tensors.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} does not hold weights ({error}): {fix}") from error


def read_types(path: Path) -> set[str]:
    """Types of the tensors in a file, as safetensors names them ("F32", "BF16", ...), from its header."""
    with safe_open(path, framework="pt") as stream:
        return {stream.get_slice(name).get_dtype() for name in stream.keys()}  # noqa: SIM118


def is_weights_file(name: Any, ending: str) -> TypeGuard[str]:
    """Whether a name that a file gave is that of a file directly in a folder, with this ending."""
    plain = isinstance(name, str) and PurePosixPath(name).name == name and not {"\\", "\0"} & set(name)
    return plain and name.endswith(ending)


def read_tensor(path: Path, name: str, device: torch.device | str = "cpu") -> Tensor:
    """One tensor. On the CPU it may be a view of the mapped file, which stays mapped as long as the tensor lives.

    A file is opened anew each time: what one mapping has touched counts as memory until it is closed.
    """
    with safe_open(path, framework="pt", device=str(device)) as stream:
        return stream.get_tensor(name)


class ShardWriter:
    """Collects tensors and writes a file whenever they fill one.

    Attributes:
        weight_map: file of every tensor. total: bytes of all tensors.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.weight_map: dict[str, str] = {}
        self.total = self._size = 0
        self._held: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        if self._held and self._size + tensor.nbytes > self.limit:
            self.flush()
        self._held[name] = tensor.detach().cpu().contiguous()
        self._size += tensor.nbytes
        self.total += tensor.nbytes

    def flush(self) -> None:
        """Write what is held."""
        if not self._held:
            return
        file = f"model-{len(set(self.weight_map.values())) + 1:05d}.safetensors"
        save_tensors(self._held, self.folder / file)
        self.weight_map |= dict.fromkeys(self._held, file)
        self._held, self._size = {}, 0


def differences(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Everything missing, unknown or of another shape, in words."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    return problems + [
        f"{name} has shape {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]


def summary(problems: list[str], most: int = 20) -> str:
    """The first `most`, and how many more there are."""
    return "; ".join(problems[:most]) + (f"; and {len(problems) - most} more" if len(problems) > most else "")


def shapes_of(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Shape]:
    """Shape of every tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors}
