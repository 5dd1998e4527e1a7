"""One episode's rows of a LeRobot data file, which holds those of many."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from avavla_ray.demonstrations.lerobot_layout import INDEX_FEATURES
from avavla_ray.demonstrations.video import MOST_PIXELS
from avavla_ray.errors import InputError

EPISODE = "episode_index"
COUNTED = {name for name, kind in INDEX_FEATURES.items() if kind == "int64"}
ROWS_AT_ONCE = 128  # pictures may be among them
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises for damaged files
STILLS = ("PNG", "JPEG")


def read_rows(path: Path, episode: int, columns: list[str]) -> pa.Table:
    """The rows of an episode in the file's order; only row groups that may hold some are read, a piece at a time.

    Raises:
        InputError: "sort: particulars".
    """
    if not path.is_file():
        raise InputError(f"missing: {path}")
    wanted = list(dict.fromkeys([EPISODE, *columns]))
    try:
        with pq.ParquetFile(path) as file:
            absent = sorted(set(wanted) - set(file.schema_arrow.names))
            if absent:
                raise InputError(f"missing: {path.name} has no column {absent[0]}")
            for column in set(wanted) & COUNTED:
                kind = file.schema_arrow.field(column).type
                if not pa.types.is_integer(kind):
                    raise InputError(f"wrong dtype: {column} of {path.name} is {kind}, expected whole numbers")
            groups = [
                group for group in range(file.num_row_groups) if _may_hold(file.metadata.row_group(group), episode)
            ]
            pieces = file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=wanted)
            batches = [piece.filter(pc.equal(piece[EPISODE], episode)) for piece in pieces]
            schema = batches[0].schema if batches else file.schema_arrow
            return pa.Table.from_batches(batches, schema)
    except DAMAGE as error:
        raise InputError(f"not readable: {path.name}: {str(error).splitlines()[0]}") from error


def _may_hold(group: pq.RowGroupMetaData, episode: int) -> bool:
    """By the group's own least and largest episode, where it tells them."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == EPISODE and column.is_stats_set and column.statistics.has_min_max:
            return column.statistics.min <= episode <= column.statistics.max
    return True


def vectors(table: pa.Table, name: str, width: int = 1) -> np.ndarray:
    """(T, width) float32 of a column of lists, or of plain numbers.

    Raises:
        InputError: "sort: particulars".
    """
    try:
        array = np.array(table[name].to_pylist(), np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"wrong shape: {name} is no table of numbers ({error})") from error
    if array.size != len(array) * width:
        raise InputError(f"wrong shape: {name} is {array.shape}, expected {width} numbers a step")
    array = array.reshape(-1, width)
    if not np.isfinite(array).all():
        step, column = np.argwhere(~np.isfinite(array))[0]
        raise InputError(f"not finite: {name} {column} of step {step} is {array[step, column]}")
    return array


def last_numbers(paths: Iterable[Path], name: str, width: int) -> Iterator[np.ndarray]:
    """The last number of each vector of a feature, (N,) a row group that is not empty.

    What cannot be read is passed over: it costs its own episodes, when these are read.
    """
    unreadable = contextlib.suppress(*DAMAGE, InputError)
    for path in paths:
        with unreadable, pq.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                continue
            for group in range(file.num_row_groups):
                if not file.metadata.row_group(group).num_rows:
                    continue
                with unreadable:
                    yield vectors(file.read_row_group(group, [name]), name, width)[:, -1]


def still(value: Any, name: str, step: int) -> np.ndarray:
    """(H, W, 3) uint8 of a picture stored as {"bytes", "path"}.

    Raises:
        InputError: "sort: particulars".
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise InputError(f"missing: {name} of step {step} is not in the Parquet file")
    try:
        with Image.open(io.BytesIO(data), formats=STILLS) as image:
            if image.height * image.width > MOST_PIXELS:
                raise ValueError(f"{image.height} x {image.width} pixels, more than any camera's")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise InputError(f"not readable: {name} of step {step} is no {' or '.join(STILLS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's, of damaged pictures
        raise InputError(f"not readable: {name} of step {step}: {error}") from error
