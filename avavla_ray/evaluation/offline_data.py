"""Which demonstrations an offline evaluation walks, and how it knows them again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avavla_ray.demonstrations.reader import DatasetMetadata, read_metadata
from avavla_ray.demonstrations.schema import EPISODES, MANIFEST
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.checkpoint import Checkpoint
from avavla_ray.policy.units import check_widths


class ChosenData(NamedTuple):
    """A data set to evaluate on.

    Attributes:
        statistics: the checkpoint's, whose units the policy acts in. episodes: indices.
        held_out: the checkpoint names exactly these episodes, or more of them, as never trained on.
    """

    metadata: DatasetMetadata
    statistics: Statistics
    episodes: list[int]
    held_out: bool

    def identity(self) -> dict[str, Any]:
        """The same for the same demonstrations, wherever they lie; JSON-ready."""
        digest = hashlib.sha256()
        for name in (MANIFEST, EPISODES):
            digest.update((self.metadata.folder / name).read_bytes())
        return {"name": self.metadata.name, "sha256": digest.hexdigest(), "statistics": self.statistics.name}

    def described(self) -> dict[str, Any]:
        """For result files: identity, place, and how much of it was walked."""
        return {
            **self.identity(), "where": str(self.metadata.folder), "suite": self.metadata.manifest.get("suite"),
            "held_out": self.held_out, "episodes": len(self.episodes), "episodes_there": len(self.metadata.episodes),
        }  # fmt: skip


def choose_data(
    sources: Sequence[str | Path],
    checkpoint: Checkpoint,
    *,
    unnorm_key: str | None = None,
    tasks: Sequence[int] = (),
    limit: int | None = None,
) -> list[ChosenData]:
    """Open data sets and choose the episodes that the checkpoint was not trained on.

    A data set is taken for the one of training where all the episodes that the checkpoint holds out under its name are
    in it. Of any other all episodes are taken, since nothing says which of them were learned from.

    Args:
        unnorm_key: statistics of the checkpoint to use; else those of the data set's name, else the only ones.
        tasks: indices; all when empty. limit: episodes a task, the first ones.

    Raises:
        InputError: a data set is not there, not finished, of another robot, named twice or without such episodes.
    """
    if not sources:
        raise InputError("--offline needs demonstrations to decide along: give --demos")
    held_out: Mapping[str, Sequence[str]] = checkpoint.extra.get("held_out") or {}
    chosen: list[ChosenData] = []
    for where in sources:
        metadata = read_metadata(where)
        if any(metadata.name == other.metadata.name for other in chosen):
            raise InputError(f"--demos {where}: another data set is called {metadata.name!r} too: evaluate one by one")
        check_widths(checkpoint.policy.config, metadata.statistics)
        key = unnorm_key or (metadata.name if metadata.name in checkpoint.all_statistics else None)
        named = set(held_out.get(metadata.name, ()))
        known = bool(named) and named <= {info.episode for info in metadata.episodes}
        count: Counter[int] = Counter()
        indices = []
        for index, info in enumerate(metadata.episodes):
            if (known and info.episode not in named) or (tasks and info.task not in tasks):
                continue
            count[info.task] += 1
            if limit is None or count[info.task] <= limit:
                indices.append(index)
        if not indices:
            raise InputError(
                f"--demos {where}: no {'held-out ' if known else ''}episode of the task(s) "
                f"{', '.join(map(str, tasks)) or 'in it'}: choose other --tasks or another data set"
            )
        chosen.append(ChosenData(metadata, checkpoint.statistics_of(key), indices, known))
    return chosen
