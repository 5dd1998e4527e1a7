"""OpenVLA's statistics: many data sets in one file, masks only where a dimension is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.normalisation import FieldStatistics, Statistics


def check_statistics(content: Any, path: Path) -> None:
    """Raise InputError unless every data set of `content` has usable action statistics."""
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold data set statistics: download it again")
    for name, value in content.items():
        try:
            _field(value["action"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {name} has no action statistics ({error!r}): download it again") from error


def pick_statistics(content: dict[str, Any], key: str | None = None) -> Statistics:
    """Statistics of one data set. Without proprioception in the file its field has no dimensions.

    Constant dimensions normalise to 0, as in the reference's training data; its evaluation makes them -1.

    Raises:
        InputError: no such data set, or several and no `key`.
    """
    if key is None:
        if len(content) != 1:
            raise InputError(f"statistics of {len(content)} data sets: name one of {', '.join(sorted(content))}")
        (key,) = content
    check_known("normalisation key", key, content)
    value = content[key]
    empty: dict[str, list[float]] = {"q01": [], "q99": []}
    return Statistics(
        key, _field(value["action"]), _field(value.get("proprio", empty)),
        int(value.get("num_trajectories", 0)), int(value.get("num_transitions", 0)),
    )  # fmt: skip


def _field(value: dict[str, Any]) -> FieldStatistics:
    q01 = np.asarray(value["q01"], np.float64)
    parts = {
        key: np.asarray(value.get(key, np.full_like(q01, np.nan)), np.float64) for key in ("mean", "std", "min", "max")
    }
    field = FieldStatistics(
        q01=q01, q99=np.asarray(value["q99"], np.float64), mean=parts["mean"], std=parts["std"],
        minimum=parts["min"], maximum=parts["max"], mask=np.asarray(value.get("mask", np.ones(q01.shape)), bool),
    )  # fmt: skip
    if not q01.shape == field.q99.shape == field.mask.shape or q01.ndim != 1:
        raise ValueError(f"q01, q99 and mask have shapes {q01.shape}, {field.q99.shape}, {field.mask.shape}")
    return field
