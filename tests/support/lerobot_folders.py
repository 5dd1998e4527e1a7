"""A small LeRobot data set, and how to tamper with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations.export_lerobot import export_lerobot
from tests.support.numbered_pictures import make_numbered_dataset

LENGTHS = (9, 14, 11, 20)
SCENE, WRIST = "observation.images.scene", "observation.images.wrist"
DATA, FILM = Path("data/chunk-000/file-000.parquet"), Path(f"videos/{SCENE}/chunk-000/file-000.mp4")
EPISODES = Path("meta/episodes/chunk-000/file-000.parquet")


def export_numbered(folder: Path) -> Path:
    """`folder`, with a data set of numbered pictures in "ours", and as LeRobot's in "lerobot"."""
    export_lerobot(make_numbered_dataset(folder / "ours", LENGTHS), folder / "lerobot")
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path, **options)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def with_value(name: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        return with_column(table, name, values)

    return change
