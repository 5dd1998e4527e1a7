"""Reading a demonstration data set: its metadata, and any steps of any episode."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations.schema import (
    EPISODE_SCHEMA,
    EPISODES,
    FORMAT,
    IMPORT_JOURNAL,
    MANIFEST,
    STEP_SCHEMA,
    STEPS,
    EpisodeInfo,
    check_schema,
    decode_image,
)
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics

COLLECT = "collect it with jobs/collect_demos.py"


@dataclass(frozen=True)
class DatasetMetadata:
    """What a data set says of itself.

    Attributes:
        manifest: everything in dataset.json: suite, image size, provenance of simulator, assets and renderer.
        episodes: in the data set's order.
    """

    folder: Path
    name: str
    manifest: dict[str, Any]
    episodes: tuple[EpisodeInfo, ...]
    statistics: Statistics

    @property
    def steps(self) -> int:
        return sum(episode.steps for episode in self.episodes)


@contextlib.contextmanager
def _open(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the wanted columns; InputError for anything else."""
    if not path.is_file():
        raise InputError(f"{path} is missing: the data set is incomplete, {COLLECT} again")
    try:
        with pq.ParquetFile(path) as file:
            check_schema(file.schema_arrow, schema, str(path))
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} is no readable Parquet file ({first}): remove it, {COLLECT} again") from error


def read_metadata(folder: str | Path) -> DatasetMetadata:
    """Open a data set without touching its steps.

    Raises:
        InputError: not there, not finished, damaged, or of another schema.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"no demonstrations at {folder}: {COLLECT} --output {folder}")
    if not path.is_file():
        state = f"holds none: {COLLECT}"
        if (folder / IMPORT_JOURNAL).is_file():
            state = "is an unfinished import: repeat jobs/import_demos.py"
        elif (folder / STEPS).is_dir():
            state = "is an unfinished collection: repeat jobs/collect_demos.py"
        raise InputError(f"{folder} {state} --output {folder}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, name = manifest["format"], manifest["name"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no manifest of demonstrations ({error!r}): {COLLECT} again") from error
    if version != FORMAT:
        raise InputError(f"{path} has format {version}, this version reads {FORMAT}: {COLLECT} again")
    with _open(folder / EPISODES, EPISODE_SCHEMA) as file:
        rows = file.read().to_pylist()
    return DatasetMetadata(folder, name, manifest, tuple(EpisodeInfo(**row) for row in rows), Statistics.load(folder))


class EpisodeReader:
    """Random access to the steps of a data set.

    Decoded pictures stay in memory until `cache_megabytes` are full; the rest is decoded again at each use.
    """

    def __init__(self, metadata: DatasetMetadata, cache_megabytes: int = 1024) -> None:
        self.metadata = metadata
        self._room = cache_megabytes * 2**20
        self._frames: dict[tuple[int, int], np.ndarray] = {}
        self._numbers: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def path(self, index: int) -> Path:
        return self.metadata.folder / STEPS / f"{self.metadata.episodes[index].episode}.parquet"

    def numbers(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Proprio (T, P) and actions (T, A) of an episode, float32, in the data set's units."""
        if index not in self._numbers:
            info = self.metadata.episodes[index]
            with _open(self.path(index), STEP_SCHEMA) as file:
                table = file.read(columns=["proprio", "action"])
            if table.num_rows != info.steps:
                raise InputError(f"{self.path(index)} holds {table.num_rows} steps, not {info.steps}: {COLLECT} again")
            proprio, actions = (
                np.stack(table[name].to_numpy(zero_copy_only=False)).astype(np.float32)
                for name in ("proprio", "action")
            )
            self._numbers[index] = (proprio, actions)
        return self._numbers[index]

    def images(self, index: int, steps: Sequence[int]) -> np.ndarray:
        """(len(steps), V, H, W, 3) uint8."""
        found = {step: self._frames[index, step] for step in steps if (index, step) in self._frames}
        missing = [step for step in steps if step not in found]
        if missing:
            for step, pictures in self._encoded(index, missing).items():
                frame = np.stack([decode_image(picture) for picture in pictures])
                found[step] = frame
                if frame.nbytes <= self._room:
                    self._room -= frame.nbytes
                    self._frames[index, step] = frame
        return np.stack([found[step] for step in steps])

    def _encoded(self, index: int, steps: Sequence[int]) -> dict[int, list[bytes]]:
        """The PNGs of some steps; only the row groups that hold them are read."""
        wanted, first = set(steps), 0
        found: dict[int, list[bytes]] = {}
        with _open(self.path(index), STEP_SCHEMA) as file:
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                inside = [step for step in wanted if first <= step < last]
                if inside:
                    column = file.read_row_group(group, columns=["images"])["images"]
                    found |= {step: column[step - first].as_py() for step in inside}
                first = last
        if wanted - found.keys():
            raise InputError(f"{self.path(index)} has no step {min(wanted - found.keys())}: {COLLECT} again")
        return found
