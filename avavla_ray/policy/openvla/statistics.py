"""`dataset_statistics.json` in OpenVLA's layout: many data sets in one file, arrays only where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.normalisation import FieldStatistics, Statistics

_KEYS = {"q01": "q01", "q99": "q99", "mean": "mean", "std": "std", "min": "minimum", "max": "maximum"}


def read_statistics(content: Any, place: str) -> dict[str, Statistics]:
    """Statistics by data set. A file without proprioception gives it no dimensions; unknown means are NaN.

    Constant dimensions normalise to 0, as in the reference's training data; its evaluation makes them -1.

    Args:
        place: opens the message of what is wrong.

    Raises:
        InputError: a data set without usable statistics of its actions, or none at all.
    """
    if not isinstance(content, dict) or not content:
        raise InputError(f"{place} does not hold data set statistics: copy or download it again")
    found = {}
    for name, value in content.items():
        try:
            empty: dict[str, list[float]] = {"q01": [], "q99": []}
            found[name] = Statistics(
                name, _read_field(value["action"]), _read_field(value.get("proprio", empty)),
                int(value.get("num_trajectories", 0)), int(value.get("num_transitions", 0)),
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place}: {name} has no usable statistics ({error!r}): copy or download it again") from (
                error
            )
    return found


def statistics_json(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """Inverse of `read_statistics`; what is unknown is left out."""
    content = {}
    for name, each in statistics.items():
        value: dict[str, Any] = {"action": _field_json(each.action)}
        if each.proprio.q01.size:
            value["proprio"] = _field_json(each.proprio)
        content[name] = value | {"num_transitions": each.steps, "num_trajectories": each.episodes}
    return content


def _read_field(value: dict[str, Any]) -> FieldStatistics:
    q01, q99 = (np.asarray(value[key], np.float64) for key in ("q01", "q99"))
    mean, std, low, high = (
        np.asarray(value.get(key, np.full_like(q01, np.nan)), np.float64) for key in ("mean", "std", "min", "max")
    )
    mask = np.asarray(value.get("mask", np.ones(q01.shape)), bool)
    shapes = [array.shape for array in (q01, q99, mean, std, low, high, mask)]
    if q01.ndim != 1 or len(set(shapes)) != 1:
        raise ValueError(f"arrays have shapes {shapes}")
    if not (np.isfinite(q01).all() and np.isfinite(q99).all()):
        raise ValueError("q01 or q99 are not finite")
    return FieldStatistics(q01, q99, mean, std, low, high, mask)


def _field_json(field: FieldStatistics) -> dict[str, Any]:
    arrays = {key: getattr(field, attribute) for key, attribute in _KEYS.items()}
    known = {key: array.tolist() for key, array in arrays.items() if np.isfinite(array).all()}
    return known | {"mask": field.mask.tolist()}
