"""The meta folder of a LeRobot v3.0 data set: features, tasks, and where each episode's rows and frames are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.errors import InputError

FETCH_AGAIN = "fetch the data set again"


def read_info(folder: Path) -> dict[str, Any]:
    """meta/info.json.

    Raises:
        InputError: not there, not readable, of another version, or without what this project reads of it.
    """
    path = folder / layout.INFO
    info = _json(path)
    version = str(info.get("codebase_version"))
    if version.startswith("v2"):
        raise InputError(
            f"{folder} has LeRobot's format {version}, expected {layout.VERSION}: convert it with LeRobot's "
            "convert_dataset_v21_to_v30.py"
        )
    if not version.startswith("v3."):
        raise InputError(f"{path}: codebase_version is {version}, expected {layout.VERSION}")
    wanted: dict[str, Any] = {"fps": (int, float), "features": dict, "data_path": str, "total_episodes": int}
    for name, kind in wanted.items():
        if not isinstance(info.get(name), kind):
            raise InputError(f"{path}: {name} is {info.get(name)!r}: {FETCH_AGAIN}")
    if not all(isinstance(feature, dict) for feature in info["features"].values()):
        raise InputError(f"{path}: a feature is not described: {FETCH_AGAIN}")
    if not info["fps"] > 0:
        raise InputError(f"{path}: fps is {info['fps']}, expected more than 0")
    return info


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: give the folder of a LeRobot data set, the one that holds meta/")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): {FETCH_AGAIN}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object: {FETCH_AGAIN}")
    return content


def read_range(folder: Path, feature: str) -> tuple[list[float], list[float]] | None:
    """The least and the largest value of each dimension of a feature by meta/stats.json; None where it does not say."""
    path = folder / layout.STATISTICS
    found = _json(path).get(feature, {}) if path.is_file() else {}
    return (found["min"], found["max"]) if {"min", "max"} <= found.keys() else None


def read_tasks(folder: Path) -> dict[int, str]:
    """task_index -> instruction.

    Raises:
        InputError: meta/tasks.parquet is missing or no table of tasks.
    """
    path = folder / layout.TASKS
    table = _table(path)
    # pandas wrote the instructions as its index, under its name or, by early versions, without one.
    instructions = [name for name in ("task", "__index_level_0__") if name in table.column_names]
    if not instructions or "task_index" not in table.column_names:
        raise InputError(f"{path} has columns {table.column_names}, expected task and task_index: {FETCH_AGAIN}")
    return dict(zip(table["task_index"].to_pylist(), table[instructions[0]].to_pylist(), strict=True))


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path} is missing: {FETCH_AGAIN}")
    try:
        with pq.ParquetFile(path) as file:
            absent = set(columns or ()) - set(file.schema_arrow.names)
            if absent:
                raise InputError(f"{path} has no column {min(absent)}: {FETCH_AGAIN}")
            return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not readable ({str(error).splitlines()[0]}): {FETCH_AGAIN}") from error


def read_episodes(folder: Path, info: dict[str, Any], videos: list[str]) -> list[dict[str, Any]]:
    """The rows of the table of episodes by episode_index, without their statistics.

    Args:
        videos: cameras that are stored as video.

    Raises:
        InputError: it is incomplete, or not readable.
    """
    paths = sorted((folder / layout.EPISODES).glob("*/*.parquet"))
    columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    for camera in videos:
        columns += [layout.video_column(camera, name) for name in ("chunk_index", "file_index", "from_timestamp")]
    rows = sorted((row for path in paths for row in _table(path, columns).to_pylist()), key=_episode_index)
    if [row["episode_index"] for row in rows] != list(range(info["total_episodes"])):
        raise InputError(
            f"{folder / layout.EPISODES} lists {len(rows)} episodes, {layout.INFO} counts {info['total_episodes']}: "
            f"{FETCH_AGAIN}"
        )
    return rows


def _episode_index(row: dict[str, Any]) -> int:
    return row["episode_index"]


def file_path(template: str | None, row: dict[str, Any], camera: str | None = None) -> str:
    """Where an episode's data or a camera's video is, relative to the data set.

    Args:
        template: of meta/info.json. row: of the table of episodes.

    Raises:
        InputError: the template asks for something else.
    """
    prefix = "data" if camera is None else f"videos/{camera}"
    chunk, file = row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]
    try:
        return str(template).format(video_key=camera, chunk_index=chunk, file_index=file)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{layout.INFO}: {template!r} is no template of chunk_index and file_index") from error
