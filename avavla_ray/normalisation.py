"""Between a data set's units and the policy's [-1, 1]: quantile normalisation as OpenVLA does it.

`dataset_statistics.json` travels with demonstrations and checkpoints, so that a policy can never be run with another
data set's units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.files import write_json

FILE_NAME = "dataset_statistics.json"
# Names of the arrays in the file, and here.
_KEYS = {"q01": "q01", "q99": "q99", "mean": "mean", "std": "std", "min": "minimum", "max": "maximum"}


@dataclass(frozen=True)
class FieldStatistics:
    """Per-dimension statistics of one field; every array has the field's width.

    Attributes:
        mask: dimensions to normalise; the others pass unchanged (the gripper command).
    """

    q01: np.ndarray
    q99: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, mask: np.ndarray | None = None) -> FieldStatistics:
        """From (N, F) values."""
        values = np.asarray(values, dtype=np.float64)
        low, high = np.quantile(values, [0.01, 0.99], axis=0)
        return cls(
            q01=low, q99=high, mean=values.mean(0), std=values.std(0),
            minimum=values.min(0), maximum=values.max(0),
            mask=np.ones(values.shape[1], bool) if mask is None else np.asarray(mask, bool),
        )  # fmt: skip

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """(..., F) in data units -> [-1, 1] by q01 and q99, clipped; float32. A constant dimension becomes 0."""
        span = self.q99 - self.q01
        scaled = np.where(span > 1e-8, 2.0 * (values - self.q01) / np.where(span > 1e-8, span, 1.0) - 1.0, 0.0)
        return np.where(self.mask, np.clip(scaled, -1.0, 1.0), values).astype(np.float32)

    def unnormalise(self, values: np.ndarray) -> np.ndarray:
        """Inverse of `normalise` inside [-1, 1]; float32."""
        scaled = 0.5 * (np.asarray(values, np.float64) + 1.0) * (self.q99 - self.q01) + self.q01
        return np.where(self.mask, scaled, values).astype(np.float32)


@dataclass(frozen=True)
class Statistics:
    """Statistics of a data set.

    Attributes:
        name: the data set's key, for instance "libero_object".
        episodes, steps: how much data they were taken from.
    """

    name: str
    action: FieldStatistics
    proprio: FieldStatistics
    episodes: int
    steps: int

    def save(self, folder: str | Path) -> None:
        """Write `dataset_statistics.json`, keyed by the data set's name."""
        write_json(Path(folder) / FILE_NAME, statistics_json({self.name: self}))

    @classmethod
    def load(cls, folder: str | Path) -> Statistics:
        """Read the single data set of `dataset_statistics.json`.

        Raises:
            InputError: missing, unreadable, or it holds several data sets.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise InputError(f"{path} is missing: the folder is incomplete, write it again")
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, content: bytes, place: str) -> Statistics:
        """The single data set of a `dataset_statistics.json`'s bytes; `place` opens the message of what is wrong.

        Raises:
            InputError: unreadable, or it holds several data sets.
        """
        try:
            decoded = json.loads(content)
        except ValueError as error:
            raise InputError(f"{place} is not JSON ({error}): write it again") from error
        known = read_statistics(decoded, place)
        if len(known) > 1:
            raise InputError(f"{place} holds {len(known)} data sets: keep the one the policy was trained on")
        return next(iter(known.values()))


def read_statistics(content: Any, place: str) -> dict[str, Statistics]:
    """Decoded `dataset_statistics.json` in OpenVLA's layout: many data sets, arrays only where they are known.

    A file without proprioception gives it no dimensions; unknown means are NaN. Constant dimensions normalise to 0, as
    in the reference's training data; its evaluation makes them -1.

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
