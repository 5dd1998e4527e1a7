"""Where a LeRobot data set of format v3.0 keeps what, as LeRobot 0.4 to 0.6 write and read it.

FOLDER/
  meta/info.json                             version, fps, features, templates of the paths below
  meta/stats.json                            per feature min, max, mean, std, count and quantiles
  meta/tasks.parquet                         instruction -> task_index
  meta/episodes/chunk-XXX/file-XXX.parquet   one row an episode: length, and where its rows and frames are
  data/chunk-XXX/file-XXX.parquet            one row a frame, many episodes a file
  videos/KEY/chunk-XXX/file-XXX.mp4          many episodes a file, one after the other
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

VERSION = "v3.0"
INFO = "meta/info.json"
STATISTICS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES_PATH = f"{EPISODES}/{FILE}.parquet"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE}.mp4"
STATE, ACTION = "observation.state", "action"
# What every data set holds beside its own features: name -> type.
INDEX_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


class FileLimits(NamedTuple):
    """When a new file is begun; LeRobot's own defaults."""

    data_megabytes: float = 100
    video_megabytes: float = 200
    files_in_chunk: int = 1000


LIMITS = FileLimits()


def video_column(camera: str, name: str) -> str:
    """Column of the table of episodes: "chunk_index", "file_index", "from_timestamp" or "to_timestamp" of a camera."""
    return f"videos/{camera}/{name}"


def is_picture(feature: dict[str, Any]) -> bool:
    """Whether a feature of info.json is a camera's, and not a depth map's."""
    if feature.get("dtype") not in ("image", "video"):
        return False
    notes = [note for note in (feature.get("video_info"), feature.get("info")) if isinstance(note, dict)]
    return not any(note.get("is_depth_map") or note.get("video.is_depth_map") for note in notes)


def vector_width(feature: dict[str, Any]) -> int:
    """How many numbers a step a feature of info.json has.

    Raises:
        ValueError: it does not say.
    """
    shape = _shape(feature)
    if shape:
        return math.prod(shape)
    raise ValueError(f"shape {feature.get('shape')} instead of how many numbers a step")


def _shape(feature: dict[str, Any]) -> tuple[int, ...]:
    """Empty where there is none to go by."""
    shape = feature.get("shape")
    if isinstance(shape, list) and all(isinstance(length, int) and length > 0 for length in shape):
        return tuple(shape)
    return ()


def picture_size(feature: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of a camera's feature, whose shape is (H, W, 3) or (3, H, W).

    Raises:
        ValueError: it is neither.
    """
    shape = _shape(feature)
    if len(shape) == 3 and shape[2] == 3:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] == 3:
        return shape[1], shape[2]
    raise ValueError(f"shape {feature.get('shape')} instead of (H, W, 3) or (3, H, W)")
