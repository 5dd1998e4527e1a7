"""The precisions that a policy's backbone can have; the rest of it is a float32 island (policy/float32.py)."""

from __future__ import annotations

import torch

from avavla_ray.errors import check_known

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The floating type of a named precision.

    Raises:
        InputError: neither "float32" nor "bfloat16".
    """
    check_known("precision", precision, DTYPES)
    return DTYPES[precision]
