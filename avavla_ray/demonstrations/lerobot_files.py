"""The data and video files of a LeRobot folder that is being written: many episodes a file, each file up to a size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avavla_ray.demonstrations import lerobot_layout as layout
from avavla_ray.demonstrations.lerobot_layout import FileLimits
from avavla_ray.demonstrations.video import VideoEncoder, join_videos


class _Place:
    """Which file is being written, how many frames it holds and how many bytes they take."""

    def __init__(self, folder: Path, template: str, limit_megabytes: float, files_in_chunk: int) -> None:
        self._folder, self._template = folder, template
        self._limit, self._files_in_chunk = limit_megabytes * 2**20, files_in_chunk
        self._number, self.frames, self.bytes = 0, 0, 0

    @property
    def indices(self) -> dict[str, int]:
        """As the table of episodes names them."""
        chunk, file = divmod(self._number, self._files_in_chunk)
        return {"chunk_index": chunk, "file_index": file}

    @property
    def path(self) -> Path:
        path = self._folder / self._template.format(**self.indices)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def full(self, coming: int) -> bool:
        """Whether so many bytes more pass the limit."""
        return self.frames > 0 and self.bytes + coming >= self._limit

    def advance(self) -> None:
        self._number, self.frames, self.bytes = self._number + 1, 0, 0


class DataFiles:
    """The Parquet files; an episode is a row group."""

    def __init__(self, folder: Path, limits: FileLimits) -> None:
        self._place = _Place(folder, layout.DATA_PATH, limits.data_megabytes, limits.files_in_chunk)
        self._writer: pq.ParquetWriter | None = None

    def add(self, columns: dict[str, np.ndarray]) -> dict[str, int]:
        """Append an episode's frames, (T,) or (T, F) each; returns where they are, as the table of episodes says it."""
        table = pa.table({name: _column(values) for name, values in columns.items()})
        place = self._place
        # In memory: what a row group takes on disk, which is less, is known only when the next has begun.
        if place.full(table.nbytes):
            self.close()
            place.advance()
        if self._writer is None:
            self._writer = pq.ParquetWriter(place.path, table.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)
        place.frames += table.num_rows
        place.bytes += table.nbytes
        return {f"data/{name}": value for name, value in place.indices.items()}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


class VideoFiles:
    """The MP4 files of a camera. Each episode is encoded by itself, so that its size is known before it gets its place,
    and joined to its file without being encoded again."""

    def __init__(self, folder: Path, camera: str, fps: int, limits: FileLimits) -> None:
        self._camera, self._fps = camera, fps
        template = layout.VIDEO_PATH.replace("{video_key}", camera)
        self._place = _Place(folder, template, limits.video_megabytes, limits.files_in_chunk)
        self._pieces: list[Path] = []
        self._encoder: VideoEncoder | None = None

    def _piece(self, number: int) -> Path:
        return self._place.path.with_suffix(f".{number}.mp4")

    def add(self, pixels: np.ndarray) -> None:
        """Append a picture of the current episode, (H, W, 3) uint8."""
        if self._encoder is None:
            height, width = pixels.shape[:2]
            self._encoder = VideoEncoder(self._piece(len(self._pieces)), width, height, self._fps)
        self._encoder.add(pixels)

    def end_episode(self, steps: int) -> dict[str, int | float]:
        """Give the current episode its place; returns where its frames are, as the table of episodes says it."""
        assert self._encoder is not None
        self._encoder.close()
        self._encoder = None
        piece, place = self._piece(len(self._pieces)), self._place
        size = piece.stat().st_size
        if place.full(size):
            self.close()
            place.advance()
            piece = piece.rename(self._piece(0))
        self._pieces.append(piece)
        where = {**place.indices, "from_timestamp": place.frames / self._fps}
        place.frames += steps
        place.bytes += size
        where["to_timestamp"] = place.frames / self._fps
        return {layout.video_column(self._camera, name): value for name, value in where.items()}

    def close(self) -> None:
        """Complete the file."""
        if self._pieces:
            join_videos(self._pieces, self._place.path)
        for piece in self._pieces:
            piece.unlink()
        self._pieces = []

    def abort(self) -> None:
        """End the encoder, if any, whatever becomes of its file."""
        if self._encoder is not None:
            self._encoder.abort()
            self._encoder = None
