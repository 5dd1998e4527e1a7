"""A policy's weights as ONE flat float32 array: it goes into an object store and out of it without being copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.parts import check_unmerged
from avavla_ray.policy.policy import AvaVlaPolicy


@dataclass(frozen=True)
class WeightBuffer:
    """All parameters end to end.

    Attributes:
        array: (S,) float32, possibly read-only. index: (name, shape) of every parameter, in the array's order.
    """

    array: np.ndarray
    index: tuple[tuple[str, tuple[int, ...]], ...]


def _index(policy: AvaVlaPolicy) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(parameter.shape)) for name, parameter in policy.named_parameters())


def flatten(policy: AvaVlaPolicy) -> WeightBuffer:
    """Copy the weights into a new buffer.

    Raises:
        InputError: LoRA adapters are merged into the base weights: those would be published with the adapters on top.
    """
    check_unmerged(policy, "copying weights")
    parts = [parameter.detach().float().cpu().reshape(-1) for parameter in policy.parameters()]
    return WeightBuffer(torch.cat(parts).numpy(), _index(policy))


@torch.no_grad()
def load_flat(policy: AvaVlaPolicy, buffer: WeightBuffer) -> None:
    """Copy a buffer's weights into the policy.

    Raises:
        InputError: the buffer was made from a policy of another configuration, or the policy's adapters are merged.
    """
    check_unmerged(policy, "copying weights")
    index = _index(policy)
    size = sum(parameter.numel() for parameter in policy.parameters())
    if buffer.index != index or buffer.array.shape != (size,):
        differing = [name for name, _ in set(buffer.index) ^ set(index)]
        what = f"parameter {min(differing)}" if differing else f"{buffer.array.size} numbers instead of {size}"
        raise InputError(f"weights of another policy ({what}): publish and load with the same configuration")
    offset = 0
    for parameter in policy.parameters():
        part = buffer.array[offset : offset + parameter.numel()].reshape(tuple(parameter.shape))
        offset += parameter.numel()
        if parameter.device.type == "cpu" and parameter.dtype == torch.float32:
            # numpy copies from a read-only array, which torch.from_numpy refuses to wrap without a warning.
            np.copyto(parameter.numpy(), part)
        else:
            parameter.copy_(torch.tensor(part))
