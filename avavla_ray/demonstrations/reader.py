"""Reading a demonstration data set, wherever it lies: its metadata, and any steps of any episode."""

from __future__ import annotations

import contextlib
import json
import time
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
from avavla_ray.normalisation import FILE_NAME, Statistics
from avavla_ray.storage.place import Place
from avavla_ray.storage.published_place import published
from avavla_ray.storage.stores import NothingThere, StoreUnreachable, first_line

COLLECT = "collect it with jobs/collect_demos.py"


@dataclass(frozen=True)
class DatasetMetadata:
    """What a data set says of itself.

    Attributes:
        manifest: everything in dataset.json: suite, image size, provenance of simulator, assets and renderer.
        episodes: in the data set's order.
    """

    folder: Place
    name: str
    manifest: dict[str, Any]
    episodes: tuple[EpisodeInfo, ...]
    statistics: Statistics

    @property
    def steps(self) -> int:
        return sum(episode.steps for episode in self.episodes)


@contextlib.contextmanager
def _open(place: Place, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the wanted columns; InputError for anything else."""
    try:
        # Of a store, what is wanted is fetched in few large reads.
        with place.open() as stream, pq.ParquetFile(stream, pre_buffer=not place.local) as file:
            check_schema(file.schema_arrow, schema, str(place))
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{place} is missing: the data set is incomplete, {COLLECT} again") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise place.explain(error) or InputError(
            f"{place} is no readable Parquet file ({first_line(error)}): remove it, {COLLECT} again"
        ) from error


def read_metadata(where: str | Path | Place) -> DatasetMetadata:
    """Open a data set without touching its steps.

    Args:
        where: a local folder or a URI, see `Place.of`.

    Raises:
        InputError: not there, not finished, damaged, or of another schema; a store that does not answer or refuses.
    """
    folder = published(Place.of(where), MANIFEST)
    path, fix = folder / MANIFEST, f"--output {folder}"
    if not folder.is_folder():
        raise NothingThere(f"no demonstrations at {folder}: {COLLECT} {fix}")
    if not path.is_file():
        state = f"holds none: {COLLECT}"
        if (folder / IMPORT_JOURNAL).is_file():
            state = "is an unfinished import: repeat jobs/import_demos.py"
        elif (folder / STEPS).is_folder():
            state = "is an unfinished collection: repeat jobs/collect_demos.py"
        raise InputError(f"{folder} {state} {fix}")
    try:
        manifest = json.loads(path.read_bytes())
        version, name = manifest["format"], manifest["name"]
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no manifest of demonstrations ({error!r}): {COLLECT} again") from error
    if version != FORMAT:
        raise InputError(f"{path} has format {version}, this version reads {FORMAT}: {COLLECT} again")
    with _open(folder / EPISODES, EPISODE_SCHEMA) as file:
        rows = file.read().to_pylist()
    return DatasetMetadata(folder, name, manifest, tuple(EpisodeInfo(**row) for row in rows), _statistics(folder))


def _statistics(folder: Place) -> Statistics:
    path = folder / FILE_NAME
    try:
        return Statistics.parse(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the data set is incomplete, {COLLECT} again") from error


class EpisodeReader:
    """Random access to the steps of a data set.

    Decoded pictures stay in memory until `cache_megabytes` are full; the rest is decoded again at each use. A store
    that stops answering is asked again for `patience` seconds before `StoreUnreachable` is raised.
    """

    def __init__(self, metadata: DatasetMetadata, cache_megabytes: int = 1024, patience: float = 600.0) -> None:
        self.metadata = metadata
        self._room = cache_megabytes * 2**20
        self._patience = patience
        self._frames: dict[tuple[int, int], np.ndarray] = {}
        self._numbers: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def place(self, index: int) -> Place:
        return self.metadata.folder / f"{STEPS}/{self.metadata.episodes[index].episode}.parquet"

    def numbers(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Proprio (T, P) and actions (T, A) of an episode, float32, in the data set's units."""
        if index not in self._numbers:
            self._read(index, set())
        return self._numbers[index]

    def load(self, index: int, steps: Sequence[int]) -> np.ndarray:
        """(len(steps), V, H, W, 3) uint8, decoded anew and not kept.

        The file is opened once; its `numbers` come along with the pictures.
        """
        frames = {step: self._decode(index, pictures) for step, pictures in self._read(index, set(steps)).items()}
        return np.stack([frames[step] for step in steps])

    def images(self, index: int, steps: Sequence[int]) -> np.ndarray:
        """(len(steps), V, H, W, 3) uint8."""
        found = {step: self._frames[index, step] for step in steps if (index, step) in self._frames}
        missing = set(steps) - found.keys()
        if missing:
            for step, pictures in self._read(index, missing).items():
                frame = found[step] = self._decode(index, pictures)
                if frame.nbytes <= self._room:
                    self._room -= frame.nbytes
                    self._frames[index, step] = frame
        return np.stack([found[step] for step in steps])

    def _read(self, index: int, steps: set[int]) -> dict[int, list[bytes]]:
        """The PNGs of some steps. The episode's numbers are kept if they are not known yet."""
        wait, deadline = 1.0, time.monotonic() + self._patience
        while True:
            try:
                with _open(self.place(index), STEP_SCHEMA) as file:
                    if index not in self._numbers:
                        self._numbers[index] = self._read_numbers(index, file)
                    return self._read_pictures(index, file, steps)
            except StoreUnreachable as error:
                if time.monotonic() + wait > deadline:
                    raise
                print(f"{error}; asking again in {wait:.0f} s", flush=True)
                time.sleep(wait)
                wait = min(2 * wait, 15.0)

    def _read_numbers(self, index: int, file: pq.ParquetFile) -> tuple[np.ndarray, np.ndarray]:
        expected = self.metadata.episodes[index].steps
        if file.metadata.num_rows != expected:
            raise InputError(
                f"{self.place(index)} holds {file.metadata.num_rows} steps, not {expected}: {COLLECT} again"
            )
        table = file.read(columns=["proprio", "action"])
        proprio, actions = (
            np.stack(table[name].to_numpy(zero_copy_only=False)).astype(np.float32) for name in ("proprio", "action")
        )
        return proprio, actions

    def _read_pictures(self, index: int, file: pq.ParquetFile, wanted: set[int]) -> dict[int, list[bytes]]:
        """The PNGs of some steps; only the row groups that hold them are read."""
        found: dict[int, list[bytes]] = {}
        if not wanted:
            return found
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        if not 0 <= min(wanted) <= max(wanted) < file.metadata.num_rows:
            lacking = min(step for step in wanted if not 0 <= step < file.metadata.num_rows)
            raise InputError(f"{self.place(index)} has no step {lacking}: {COLLECT} again")
        groups = sorted({int(np.searchsorted(ends, step, side="right")) for step in wanted})
        column = file.read_row_groups(groups, columns=["images"])["images"]
        start = 0
        for group in groups:
            rows = file.metadata.row_group(group).num_rows
            first = int(ends[group]) - rows
            found |= {step: column[start + step - first].as_py() for step in wanted if first <= step < first + rows}
            start += rows
        return found

    def _decode(self, index: int, pictures: list[bytes]) -> np.ndarray:
        try:
            return np.stack([decode_image(picture) for picture in pictures])
        except InputError as error:
            raise InputError(f"{self.place(index)}: {error}") from error
