"""Several data sets that one policy learns from together, each in its own units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avavla_ray.demonstrations.reader import DatasetMetadata, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import NothingThere, scheme_of, without_secrets


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

    A place in a store whose own name ends in "=NUMBER" is written with a slash behind it, "s3://BUCKET/task=3/", or
    with a weight, "s3://BUCKET/task=3=1".

    Raises:
        InputError: one of them is no data set, names or widths do not go together, or only some have weights.
    """
    if not sources:
        raise InputError("no demonstrations: give at least one data set")
    parsed = [_parse(source) for source in sources]
    given = [weight for _, weight in parsed if weight is not None]
    if given and len(given) < len(parsed):
        bare = next(where for where, weight in parsed if weight is None)
        raise InputError(f"{_shown(bare)} has no weight, others have: give each data set one (WHERE=2.5), or none")
    datasets = tuple(_open(source, where) for source, (where, _) in zip(sources, parsed, strict=True))
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
        raise InputError(
            f"{_shown(source)}: weight {text} is not above 0: give the share of decisions to learn from {_shown(where)}"
        )
    return where, weight


def _open(source: str | Path | Place, where: str | Path | Place) -> DatasetMetadata:
    try:
        return read_metadata(where)
    except NothingThere as error:
        if where is source or "?" in str(where):  # nothing of a name stands behind the options of a URI
            raise
        weight = str(source).rpartition("=")[2]
        raise NothingThere(
            f"{error} (={weight} was read as a weight: if the name itself ends in it, write {_shown(where)}={weight}/)"
        ) from error


def _shown(source: str | Path | Place) -> str:
    return without_secrets(source) if isinstance(source, str) and scheme_of(source) else str(source)


def split(
    mixture: Mixture, share: float, limit: int, seed: int, before: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Episodes to train on and to hold out, indices of each data set.

    Of each data set `share` is held out, at most `limit` episodes and at least one, unless one of the two is 0. None is
    held out of a data set of fewer than five episodes.

    Args:
        before: what the policy's training so far has held out, names of episodes by the name of the data set. All of
            them that are still there are held out again, and no others, whatever `share` and `limit` are: every other
            episode of a data set that is named may have been learned from already.

    Raises:
        InputError: nothing of a data set is left to train on.
    """
    training, held_out = [], []
    for place, dataset in enumerate(mixture.datasets):
        names = [info.episode for info in dataset.episodes]
        if before is not None and dataset.name in before:
            kept = set(before[dataset.name])
            chosen = [index for index, name in enumerate(names) if name in kept]
        else:
            count = min(limit, max(1, round(share * len(names)))) if share > 0 and len(names) >= 5 else 0
            # The first data set is split as the only one is.
            key = [seed, 4] if place == 0 else [seed, 4, place]
            chosen = sorted(np.random.default_rng(key).permutation(len(names)).tolist()[:count])
        if len(chosen) == len(names):
            raise InputError(
                f"{dataset.folder}: all {len(names)} episodes are held out of training, none is left to learn from: "
                "add others, or hold out fewer"
            )
        held_out.append(chosen)
        training.append(sorted(set(range(len(names))) - set(chosen)))
    return training, held_out
