"""Where the policy computes in float32 whatever surrounds it.

The backbone may run in bfloat16. Beliefs, attention weights, latent states and log-probabilities may not: PPO compares
likelihoods whose differences a lower precision would swallow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avavla_ray.errors import check_known

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The floating type of a named precision.

    Raises:
        InputError: neither "float32" nor "bfloat16".
    """
    check_known("precision", precision, DTYPES)
    return DTYPES[precision]


def float32_island(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a module's forward: floating tensors among its positional arguments come in as float32, and autocast is
    off inside."""

    @functools.wraps(forward)
    def inside(module: Any, *arguments: Any, **options: Any) -> Any:
        raised = [
            value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in arguments
        ]
        device = next((value.device.type for value in arguments if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return forward(module, *raised, **options)

    return inside
