"""Our demonstrations as a LeRobot data set of format v3.0: numbers exact, pictures as H.264 video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.demonstrations.lerobot_files import DataFiles, VideoFiles
from avavla_ray.demonstrations.lerobot_layout import LIMITS, FileLimits
from avavla_ray.demonstrations.lerobot_statistics import PictureStatistics, vector_statistics
from avavla_ray.demonstrations.reader import DatasetMetadata, EpisodeReader, read_metadata
from avavla_ray.demonstrations.video import ENCODING
from avavla_ray.dimensions import closing_command
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, write_json
from avavla_ray.simulators.registry import SUITES

CAMERAS = ("scene", "wrist")  # of our simulators, in their order
ORIGIN = "meta/avavla_ray.json"  # our manifest; LeRobot does not look at it
PICTURES_AT_ONCE = 8


class Export(NamedTuple):
    """What was written; cameras are the features' names."""

    episodes: int
    steps: int
    fps: int
    cameras: tuple[str, ...]


def export_lerobot(
    folder: str | Path,
    output: str | Path,
    *,
    fps: int | None = None,
    tick: Callable[[], object] = lambda: None,
    limits: FileLimits = LIMITS,
) -> Export:
    """Write the data set in `folder` to `output`, which appears only when it is complete.

    Args:
        output: a folder that does not exist yet, or an empty one.
        fps: steps in a second of the robot's time; what an import found, or the suite's own, when left out.
        tick: called after each episode.

    Raises:
        InputError: no data set of ours, a folder in use, no known fps, pictures of odd size, disk full.
    """
    metadata, output = read_metadata(folder), Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output} exists already: give a folder that does not, or remove it")
    rate = _frame_rate(metadata, fps)
    with atomic_path(output) as temporary, _Exporter(temporary, metadata, rate, limits) as exporter:
        for index in range(len(metadata.episodes)):
            exporter.add(index)
            tick()
        exporter.finish()
    return Export(len(metadata.episodes), metadata.steps, rate, exporter.cameras)


def _frame_rate(metadata: DatasetMetadata, fps: int | None) -> int:
    suite = metadata.manifest.get("suite")
    known = [fps, metadata.manifest.get("fps"), SUITES[suite].control_hz if suite in SUITES else None]
    rate = next((value for value in known if value is not None), None)
    if rate is None:
        raise InputError(f"the control rate of {suite} is not known: give --fps")
    # LeRobot's own field is an integer.
    if rate != int(rate) or rate < 1:
        raise InputError(f"{rate} frames a second: give a whole number of at least 1")
    return int(rate)


def _camera_names(count: int) -> tuple[str, ...]:
    names = (*CAMERAS, *(f"camera_{index}" for index in range(len(CAMERAS), count)))
    return tuple(f"observation.images.{name}" for name in names[:count])


class _Exporter:
    """Adds episodes to the files of a LeRobot folder that is being written."""

    def __init__(self, folder: Path, metadata: DatasetMetadata, fps: int, limits: FileLimits) -> None:
        self._folder, self._metadata, self._fps, self._limits = folder, metadata, fps, limits
        self._reader = EpisodeReader(metadata, cache_megabytes=0)
        count, height, width = self._reader.images(0, [0])[0].shape[:3]
        self.cameras = _camera_names(count)
        self._size = (height, width)
        self._data = DataFiles(folder, limits)
        self._videos = {camera: VideoFiles(folder, camera, fps, limits) for camera in self.cameras}
        self._pictures = {camera: PictureStatistics() for camera in self.cameras}
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._steps = 0

    def __enter__(self) -> _Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        for video in self._videos.values():
            video.abort()

    def add(self, index: int) -> None:
        """Append an episode of our data set."""
        info = self._metadata.episodes[index]
        proprio, actions = self._reader.numbers(index)
        order = np.arange(info.steps)
        numbers = {
            layout.STATE: proprio,
            layout.ACTION: actions,
            "timestamp": (order / self._fps).astype(np.float32),
            "frame_index": order,
            "episode_index": np.full(info.steps, index),
            "index": self._steps + order,
            "task_index": np.full(info.steps, self._tasks.setdefault(info.instruction, len(self._tasks))),
        }
        row: dict[str, Any] = {"episode_index": index, "tasks": [info.instruction], "length": info.steps}
        row |= self._data.add(numbers)
        row |= {"dataset_from_index": self._steps, "dataset_to_index": self._steps + info.steps}
        summaries = {name: vector_statistics(values.reshape(info.steps, -1)) for name, values in numbers.items()}
        summaries |= self._add_pictures(index, info.steps)
        for video in self._videos.values():
            row |= video.end_episode(info.steps)
        row |= {
            f"stats/{feature}/{name}": value for feature, found in summaries.items() for name, value in found.items()
        }
        # LeRobot goes from an episode to the file of its own row by these.
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._rows.append(row)
        for name, values in numbers.items():
            self._numbers.setdefault(name, []).append(values.reshape(info.steps, -1))
        self._steps += info.steps

    def _add_pictures(self, index: int, steps: int) -> dict[str, dict[str, list[Any]]]:
        found = {camera: PictureStatistics() for camera in self.cameras}
        for first in range(0, steps, PICTURES_AT_ONCE):
            for frame in self._reader.images(index, range(first, min(first + PICTURES_AT_ONCE, steps))):
                for camera, pixels in zip(self.cameras, frame, strict=True):
                    self._videos[camera].add(pixels)
                    found[camera].add(pixels)
        for camera, statistics in found.items():
            self._pictures[camera].merge(statistics)
        return {camera: statistics.summary() for camera, statistics in found.items()}

    def finish(self) -> None:
        """Complete the files and write what describes them."""
        self._data.close()
        for video in self._videos.values():
            video.close()
        statistics = {name: vector_statistics(np.concatenate(values)) for name, values in self._numbers.items()}
        statistics |= {camera: pictures.summary() for camera, pictures in self._pictures.items()}
        write_json(self._folder / layout.STATISTICS, statistics)
        episodes = self._folder / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._rows), episodes)
        # LeRobot finds a task's number by the index of the table, which only pandas can mark as one.
        index = pd.Index(list(self._tasks), name="task")
        pd.DataFrame({"task_index": list(self._tasks.values())}, index=index).to_parquet(self._folder / layout.TASKS)
        write_json(self._folder / ORIGIN, self._metadata.manifest)
        write_json(self._folder / layout.INFO, self._info())

    def _info(self) -> dict[str, Any]:
        proprio, actions = self._numbers[layout.STATE][0], self._numbers[layout.ACTION][0]
        return {
            "codebase_version": layout.VERSION,
            "robot_type": None,
            "total_episodes": len(self._rows),
            "total_frames": self._steps,
            "total_tasks": len(self._tasks),
            "chunks_size": self._limits.files_in_chunk,
            "data_files_size_in_mb": self._limits.data_megabytes,
            "video_files_size_in_mb": self._limits.video_megabytes,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH,
            "features": {
                layout.STATE: _vector_feature(_numbered("state", proprio.shape[1])),
                layout.ACTION: _vector_feature([*_numbered("action", actions.shape[1] - 1), self._gripper_name()]),
                **{camera: self._picture_feature() for camera in self.cameras},
                **{name: {"dtype": kind, "shape": [1], "names": None} for name, kind in layout.INDEX_FEATURES.items()},
            },
        }

    def _gripper_name(self) -> str:
        closing = closing_command(str(self._metadata.manifest.get("suite")))
        return f"gripper ({-closing:+d} open, {closing:+d} close)"

    def _picture_feature(self) -> dict[str, Any]:
        height, width = self._size
        return {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.channels": 3,
                "video.fps": self._fps,
                "video.codec": ENCODING.codec,
                "video.pix_fmt": ENCODING.pixels,
                "video.g": ENCODING.key_frames,
                "video.crf": ENCODING.quality,
                "video.preset": ENCODING.preset,
                "is_depth_map": False,
                "has_audio": False,
            },
        }


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{index}" for index in range(count)]


def _vector_feature(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": names}
