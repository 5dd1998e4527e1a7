"""Shapes of a model that is not there, and what differs from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch

from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.model import OpenVla

Shape = tuple[int, ...]


def build_on_meta(config: OpenVlaConfig) -> OpenVla:
    """The model with shapes only: nothing is allocated, whatever its size."""
    with torch.device("meta"):
        return OpenVla(config)


@functools.lru_cache(maxsize=8)
def model_shapes(config: OpenVlaConfig) -> dict[str, Shape]:
    """Shape of every tensor of the model's state_dict."""
    return {name: tuple(tensor.shape) for name, tensor in build_on_meta(config).state_dict().items()}


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
