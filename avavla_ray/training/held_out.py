"""Validation of a cloning run: the error on episodes that none of its steps learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.windows import Encode
from avavla_ray.dimensions import dimension_names
from avavla_ray.training.stage_run import StageRun
from avavla_ray.training.validation import held_out_errors


class HeldOut:
    """Episodes of each data set of a mixture, by index. Decoded pictures are kept: every validation reads the same."""

    def __init__(self, mixture: Mixture, episodes: Sequence[Sequence[int]], encode: Encode) -> None:
        self._parts = [(EpisodeReader(data), chosen) for data, chosen in zip(mixture.datasets, episodes, strict=True)]
        self._encode = encode

    def __bool__(self) -> bool:
        return any(chosen for _, chosen in self._parts)

    @property
    def names(self) -> dict[str, list[str]]:
        """Of the episodes, by data set."""
        return {
            reader.metadata.name: [reader.metadata.episodes[index].episode for index in chosen]
            for reader, chosen in self._parts
        }

    def validate(self, stage: StageRun) -> dict[str, float]:
        """L1 of normalised actions at the depth that the stage trains: "l1" over all demonstrated steps, "l1_x" and so
        on by action dimension, and "NAME/l1" by data set where there are several. Collective."""
        errors, weights = {}, []
        with stage.result() as objective:
            for reader, chosen in self._parts:
                if chosen:
                    data = reader.metadata
                    errors[data.name] = held_out_errors(
                        objective, reader, self._encode, chosen, stage.depth, stage.engine
                    )
                    weights.append(sum(data.episodes[index].steps for index in chosen))
        mean = np.average(list(errors.values()), axis=0, weights=weights)
        found = {"l1": float(mean.mean())}
        found |= {f"l1_{name}": float(error) for name, error in zip(dimension_names(len(mean)), mean, strict=True)}
        if len(errors) > 1:
            found |= {f"{name}/l1": float(each.mean()) for name, each in errors.items()}
        return found
