"""Between a data set's units and the policy's [-1, 1]: quantile normalisation as OpenVLA does it.

`dataset_statistics.json` travels with demonstrations and checkpoints, so that a policy can never be run with another
data set's units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.files import write_json

FILE_NAME = "dataset_statistics.json"


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

    def to_json(self) -> dict[str, Any]:
        return {
            "q01": self.q01.tolist(), "q99": self.q99.tolist(), "mean": self.mean.tolist(),
            "std": self.std.tolist(), "min": self.minimum.tolist(), "max": self.maximum.tolist(),
            "mask": self.mask.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FieldStatistics:
        def numbers(key: str) -> np.ndarray:
            return np.asarray(value[key], np.float64)

        return cls(
            q01=numbers("q01"), q99=numbers("q99"), mean=numbers("mean"), std=numbers("std"),
            minimum=numbers("min"), maximum=numbers("max"), mask=np.asarray(value["mask"], bool),
        )  # fmt: skip


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
        """Write `dataset_statistics.json` in OpenVLA's layout, keyed by the data set's name."""
        write_json(
            Path(folder) / FILE_NAME,
            {
                self.name: {
                    "action": self.action.to_json(),
                    "proprio": self.proprio.to_json(),
                    "num_transitions": self.steps,
                    "num_trajectories": self.episodes,
                }
            },
        )

    @classmethod
    def load(cls, folder: str | Path) -> Statistics:
        """Read the single data set of `dataset_statistics.json`.

        Raises:
            InputError: missing, unreadable, or it holds several data sets.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise InputError(f"{path} is missing: the folder is incomplete, write it again")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            (name, value), *others = content.items()
            loaded = cls(
                name,
                FieldStatistics.from_json(value["action"]),
                FieldStatistics.from_json(value["proprio"]),
                int(value["num_trajectories"]),
                int(value["num_transitions"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} does not hold data set statistics ({error!r}): write it again") from error
        if others:
            raise InputError(f"{path} holds {len(content)} data sets: keep the one the policy was trained on")
        return loaded
