"""The data and video files of a LeRobot folder that is being written: many episodes a file, each file up to a size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.demonstrations.lerobot_layout import FileLimits
from avavla_ray.demonstrations.video import VideoEncoder


class _Place:
    """Which file is being written, and how many frames it holds."""

    def __init__(self, template: str, limit_megabytes: float, files_in_chunk: int) -> None:
        self._template, self._limit, self._files_in_chunk = template, limit_megabytes * 2**20, files_in_chunk
        self._number, self.frames = 0, 0

    @property
    def chunk(self) -> int:
        return self._number // self._files_in_chunk

    @property
    def file(self) -> int:
        return self._number % self._files_in_chunk

    def path(self, folder: Path) -> Path:
        path = folder / self._template.format(chunk_index=self.chunk, file_index=self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def full(self, folder: Path, coming: int) -> bool:
        """Whether `coming` more frames, as large as those before, pass the limit."""
        if not self.frames:
            return False
        size = self.path(folder).stat().st_size
        return size + size / self.frames * coming >= self._limit

    def advance(self) -> None:
        self._number, self.frames = self._number + 1, 0


class DataFiles:
    """The Parquet files; an episode is a row group."""

    def __init__(self, folder: Path, limits: FileLimits) -> None:
        self._folder = folder
        self._place = _Place(layout.DATA_PATH, limits.data_megabytes, limits.files_in_chunk)
        self._writer: pq.ParquetWriter | None = None

    def add(self, columns: dict[str, np.ndarray]) -> dict[str, int]:
        """Append an episode's frames, (T,) or (T, F) each; returns where they are, as the table of episodes says it."""
        table = pa.table({name: _column(values) for name, values in columns.items()})
        if self._place.full(self._folder, table.num_rows):
            self.close()
            self._place.advance()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._place.path(self._folder), table.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._place.frames += table.num_rows
        return {"data/chunk_index": self._place.chunk, "data/file_index": self._place.file}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


class VideoFiles:
    """The MP4 files of a camera."""

    def __init__(self, folder: Path, camera: str, fps: int, limits: FileLimits) -> None:
        self._folder, self._camera, self._fps = folder, camera, fps
        template = layout.VIDEO_PATH.replace("{video_key}", camera)
        self._place = _Place(template, limits.video_megabytes, limits.files_in_chunk)
        self._encoder: VideoEncoder | None = None

    def begin(self, steps: int, height: int, width: int) -> dict[str, int | float]:
        """Make room for an episode; returns where its frames will be, as the table of episodes says it."""
        if self._place.full(self._folder, steps):
            self.close()
            self._place.advance()
        if self._encoder is None:
            self._encoder = VideoEncoder(self._place.path(self._folder), width, height, self._fps)
        first = self._place.frames
        self._place.frames += steps
        where = {
            "chunk_index": self._place.chunk,
            "file_index": self._place.file,
            "from_timestamp": first / self._fps,
            "to_timestamp": (first + steps) / self._fps,
        }
        return {layout.video_column(self._camera, name): value for name, value in where.items()}

    def add(self, pixels: np.ndarray) -> None:
        """Append a picture of the episode begun, (H, W, 3) uint8."""
        assert self._encoder is not None
        self._encoder.add(pixels)

    def close(self) -> None:
        """Complete the file."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def abort(self) -> None:
        """End the encoder, if any, whatever becomes of its file."""
        if self._encoder is not None:
            self._encoder.abort()
            self._encoder = None
