"""Several data sets that one policy learns from together, each in its own units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avavla_ray.demonstrations.place import Place
from avavla_ray.demonstrations.reader import DatasetMetadata, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics


class Mixture(NamedTuple):
    """weights: shares, up to a factor, of the decisions learned from each data set; None: by their sizes."""

    datasets: tuple[DatasetMetadata, ...]
    weights: tuple[float, ...] | None = None

    @property
    def statistics(self) -> dict[str, Statistics]:
        """By the data sets' names."""
        return {dataset.name: dataset.statistics for dataset in self.datasets}


def open_mixture(sources: Sequence[str | Path | Place]) -> Mixture:
    """Open data sets given as "WHERE" or "WHERE=2.5", the latter with a weight.

    Raises:
        InputError: one of them is no data set, names or widths do not go together, or only some have weights.
    """
    if not sources:
        raise InputError("no demonstrations: give at least one data set")
    parsed = [_parse(source) for source in sources]
    given = [weight for _, weight in parsed if weight is not None]
    if given and len(given) < len(parsed):
        bare = next(where for where, weight in parsed if weight is None)
        raise InputError(f"{bare} has no weight, others have: give each data set one (WHERE=2.5), or none")
    datasets = tuple(read_metadata(where) for where, _ in parsed)
    first = datasets[0]
    for place, dataset in enumerate(datasets):
        same = next((other for other in datasets[:place] if other.name == dataset.name), None)
        if same is not None:
            raise InputError(
                f"{same.folder} and {dataset.folder} are both named {dataset.name!r}: their statistics could not be "
                "told apart, collect or import one of them under another name"
            )
        for kind in ("action", "proprio"):
            found, wanted = (len(getattr(each.statistics, kind).mask) for each in (dataset, first))
            if found != wanted:
                raise InputError(
                    f"{dataset.folder} has {kind} of {found} numbers, {first.folder} of {wanted}: one policy cannot "
                    "learn from both"
                )
    return Mixture(datasets, tuple(given) or None)


def _parse(source: str | Path | Place) -> tuple[str | Path | Place, float | None]:
    """Where, and the weight if there is one. A folder or an option of a URI may hold "=" itself."""
    if not isinstance(source, str) or Path(source).is_dir():
        return source, None
    where, equals, text = source.rpartition("=")
    _, query, options = where.rpartition("?")
    if not equals or (query and "=" not in options.rpartition("&")[2]):
        return source, None
    try:
        weight = float(text)
    except ValueError:
        return source, None
    if not (math.isfinite(weight) and weight > 0):
        raise InputError(f"{source}: weight {text} is not above 0: give the share of decisions to learn from {where}")
    return where, weight


def split(mixture: Mixture, share: float, limit: int, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Episodes to train on and to hold out, indices of each data set: of each, `share` is held out, at most `limit`,
    none of fewer than five episodes."""
    training, held_out = [], []
    for place, dataset in enumerate(mixture.datasets):
        episodes = len(dataset.episodes)
        count = min(limit, round(share * episodes)) if episodes >= 5 else 0
        # The first data set is split as the only one is.
        key = [seed, 4] if place == 0 else [seed, 4, place]
        order = np.random.default_rng(key).permutation(episodes).tolist()
        training.append(sorted(order[count:]))
        held_out.append(sorted(order[:count]))
    return training, held_out
