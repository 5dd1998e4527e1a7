"""The meta folder of a LeRobot v3.0 data set: features, tasks, and where each episode's rows and frames are."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.demonstrations.importers.lerobot_rows import DAMAGE
from avavla_ray.errors import InputError

FETCH_AGAIN = "fetch the data set again"
LAST_TASK = 2**31 - 1  # of the numbers that our episodes can hold


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


def read_tasks(folder: Path) -> dict[int, str]:
    """task_index -> instruction, of the tasks that have both.

    Raises:
        InputError: meta/tasks.parquet is missing, no table of tasks, or has two of one number.
    """
    path = folder / layout.TASKS
    table = _table(path)
    # pandas wrote the instructions as its index, under its name or, by early versions, without one.
    instructions = [name for name in ("task", "__index_level_0__") if name in table.column_names]
    if not instructions or "task_index" not in table.column_names:
        raise InputError(f"{path} has columns {table.column_names}, expected task and task_index: {FETCH_AGAIN}")
    tasks: dict[int, str] = {}
    for number, text in zip(table["task_index"].to_pylist(), table[instructions[0]].to_pylist(), strict=True):
        whole = isinstance(number, int) and 0 <= number <= LAST_TASK and isinstance(text, str) and text.strip()
        if whole and tasks.setdefault(number, text) != text:
            raise InputError(f"{path} calls task {number} both {tasks[number]!r} and {text!r}: {FETCH_AGAIN}")
    return tasks


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path} is missing: {FETCH_AGAIN}")
    try:
        with pq.ParquetFile(path) as file:
            absent = set(columns or ()) - set(file.schema_arrow.names)
            if absent:
                raise InputError(f"{path} has no column {min(absent)}: {FETCH_AGAIN}")
            table = file.read(columns=columns)
            table.validate(full=True)  # whether texts are texts
            return table
    except DAMAGE as error:
        raise InputError(f"{path} is not readable ({str(error).splitlines()[0]}): {FETCH_AGAIN}") from error


def read_episodes(folder: Path, info: dict[str, Any], videos: list[str]) -> list[dict[str, Any]]:
    """The rows of the table of episodes by episode_index, without their statistics.

    Args:
        videos: cameras that are stored as video.

    Raises:
        InputError: it is incomplete, or not readable.
    """
    paths = sorted((folder / layout.EPISODES).glob("*/*.parquet"))
    counts, times = _columns(videos)
    columns = ["episode_index", "tasks", *counts, *times]
    rows = [row for path in paths for row in _table(path, columns).to_pylist()]
    if not all(isinstance(row["episode_index"], int) for row in rows):
        raise InputError(f"{folder / layout.EPISODES} lists an episode without a number: {FETCH_AGAIN}")
    rows.sort(key=_episode_index)
    total = info["total_episodes"]
    if len(rows) != total or [row["episode_index"] for row in rows] != list(range(total)):
        raise InputError(
            f"{folder / layout.EPISODES} lists {len(rows)} episodes, {layout.INFO} counts {total}: {FETCH_AGAIN}"
        )
    return rows


def _episode_index(row: dict[str, Any]) -> int:
    return row["episode_index"]


def _columns(videos: list[str]) -> tuple[list[str], list[str]]:
    """Columns of the table of episodes that count something, and those that tell seconds."""
    counts, times = ["length", "data/chunk_index", "data/file_index"], []
    for camera in videos:
        counts += [layout.video_column(camera, name) for name in ("chunk_index", "file_index")]
        times += [layout.video_column(camera, name) for name in ("from_timestamp", "to_timestamp")]
    return counts, times


def row_trouble(row: dict[str, Any], videos: list[str]) -> str | None:
    """What is wrong with an episode's row of the table of episodes, "sort: particulars"; None if nothing is."""
    counts, times = _columns(videos)
    wrong = [name for name in counts if not (isinstance(row[name], int) and row[name] >= 0)]
    wrong += [name for name in times if not (isinstance(row[name], int | float) and math.isfinite(row[name]))]
    tasks = row["tasks"]
    if not (isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)):
        wrong.append("tasks")
    return f"not readable: {wrong[0]} in the table of episodes is {row[wrong[0]]!r}" if wrong else None


def file_path(template: str | None, row: dict[str, Any], camera: str | None = None) -> str:
    """Where an episode's data or a camera's video is, relative to the data set.

    Args:
        template: of meta/info.json. row: of the table of episodes.

    Raises:
        InputError: the template asks for something else, or leads out of the data set.
    """
    prefix = "data" if camera is None else f"videos/{camera}"
    chunk, file = row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]
    try:
        path = PurePosixPath(str(template).format(video_key=camera, chunk_index=chunk, file_index=file))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{layout.INFO}: {template!r} is no template of chunk_index and file_index") from error
    # By its words: downloaders lay a data set out as links to where they keep files.
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{layout.INFO}: {template!r} leads out of the data set: {FETCH_AGAIN}")
    return str(path)
