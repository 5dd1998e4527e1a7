"""Where a policy computes in float32, whatever surrounds it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

_Method = TypeVar("_Method", bound=Callable[..., Any])


def float32_island(method: _Method) -> _Method:
    """Run a module's method in float32: autocast is off inside, and tensors of a lower precision are cast up first.

    PPO's likelihood ratios compare numbers that bfloat16 would blur. At least one positional argument, or the first
    part of one, must be a tensor.
    """

    @functools.wraps(method)
    def in_float32(module: Any, *arguments: Any, **options: Any) -> Any:
        arguments = tuple(_cast_up(argument) for argument in arguments)
        options = {name: _cast_up(option) for name, option in options.items()}
        first = arguments[0]
        device = (first if isinstance(first, Tensor) else first[0]).device.type
        if not torch.is_autocast_enabled(device):
            return method(module, *arguments, **options)
        with torch.autocast(device, enabled=False):
            return method(module, *arguments, **options)

    return in_float32  # type: ignore[return-value]


def _cast_up(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() and value.itemsize < 4 else value
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_cast_up(part) for part in value)
    return value
