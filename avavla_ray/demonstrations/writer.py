"""Writing a demonstration data set: episode by episode, each file whole or absent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations.schema import (
    EPISODE_SCHEMA,
    EPISODES,
    FORMAT,
    MANIFEST,
    STEPS,
    Episode,
    EpisodeInfo,
    episode_table,
)
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, write_json
from avavla_ray.normalisation import FieldStatistics, Statistics


def check_episode(episode: Episode) -> None:
    """Refuse what no data set may hold.

    Raises:
        InputError: the arrays disagree in length, or a number is not finite.
    """
    info = episode.info
    lengths = {len(episode.images), len(episode.proprio), len(episode.actions), info.steps}
    if len(lengths) != 1 or info.steps == 0:
        raise InputError(f"episode {info.episode}: images, proprio, actions and steps differ in length: {lengths}")
    if not (np.isfinite(episode.proprio).all() and np.isfinite(episode.actions).all()):
        raise InputError(f"episode {info.episode} holds numbers that are not finite: leave it out")


class DatasetWriter:
    """Adds episodes to a data set's folder, and closes it with its index and statistics.

    Until the first `finish` the folder holds episode files only and no reader accepts it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, episode: str) -> Path:
        return self.folder / STEPS / f"{episode}.parquet"

    def write(self, episode: Episode) -> None:
        """Add an episode, replacing one of the same name.

        Raises:
            InputError: the arrays disagree in length, or a number is not finite.
        """
        check_episode(episode)
        info = episode.info
        table = episode_table(episode).replace_schema_metadata({"avavla_ray": json.dumps(asdict(info))})
        with atomic_path(self.path(info.episode)) as temporary:
            # Pictures are compressed already; small row groups let a reader fetch single steps.
            pq.write_table(table, temporary, compression="none", row_group_size=8, use_dictionary=False)

    def info(self, episode: str) -> EpisodeInfo | None:
        """What a written episode's file says of itself, or None where there is none.

        Raises:
            InputError: the file is not one of ours.
        """
        path = self.path(episode)
        if not path.is_file():
            return None
        try:
            return EpisodeInfo(**json.loads(pq.read_schema(path).metadata[b"avavla_ray"]))
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no episode of ours ({error!r}): remove it and repeat") from error

    def finish(self, name: str, episodes: list[str], manifest: dict[str, Any]) -> Statistics:
        """Write the index of `episodes` (in this order), their statistics, and last the manifest.

        Args:
            name: the data set's key in its statistics, for instance "libero_object".
            manifest: how it was made: suite, image size, provenance; JSON-ready.

        Raises:
            InputError: an episode is missing, or its steps hold more or fewer numbers than the others'.
        """
        rows, actions, proprio = [], [], []
        for episode in episodes:
            info = self.info(episode)
            if info is None:
                raise InputError(f"{self.path(episode)} is missing: collect again")
            rows.append(asdict(info))
            columns = pq.read_table(self.path(episode), columns=["action", "proprio"])
            actions.append(np.stack(columns["action"].to_numpy(zero_copy_only=False)))
            proprio.append(np.stack(columns["proprio"].to_numpy(zero_copy_only=False)))
            for field, arrays in (("actions", actions), ("proprio", proprio)):
                width, others = arrays[-1].shape[1], arrays[0].shape[1]
                if width != others:
                    raise InputError(f"{self.path(episode)}: {field} of {width} numbers, others {others}: leave it out")
        if not rows:
            raise InputError(f"{self.folder}: a data set needs at least one episode")
        statistics = statistics_of(name, actions, proprio)
        statistics.save(self.folder)
        with atomic_path(self.folder / EPISODES) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=EPISODE_SCHEMA), temporary)
        write_json(
            self.folder / MANIFEST,
            {"format": FORMAT, "name": name, "episodes": len(rows), "steps": statistics.steps, **manifest},
        )
        return statistics


def statistics_of(name: str, actions: list[np.ndarray], proprio: list[np.ndarray]) -> Statistics:
    """Statistics over all steps; the last action dimension is the gripper's -1/+1 command and stays as it is.

    Args:
        actions, proprio: (T, A) and (T, P) of each episode.
    """
    all_actions = np.concatenate(actions)
    mask = np.ones(all_actions.shape[1], bool)
    mask[-1] = False
    return Statistics(
        name,
        FieldStatistics.of(all_actions, mask),
        FieldStatistics.of(np.concatenate(proprio)),
        episodes=len(actions),
        steps=len(all_actions),
    )
