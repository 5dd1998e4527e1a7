"""What a demonstration data set is on disk: Parquet with one row a step, a table of episodes, a manifest.

    FOLDER/
      dataset.json              manifest: format, suite, image size, how it was made
      dataset_statistics.json   normalisation statistics (normalisation.py)
      episodes.parquet          one row an episode
      steps/EPISODE.parquet     one row a step; the observation is the one BEFORE the action

Letters: T steps, V cameras, H x W pixels, P proprioception, A action dimension.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from avavla_ray.errors import InputError

FORMAT = 1
MANIFEST = "dataset.json"
EPISODES = "episodes.parquet"
STEPS = "steps"
IMPORT_JOURNAL = "import.jsonl"  # in a folder whose import has not ended

STEP_SCHEMA = pa.schema(
    [
        pa.field("episode", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("task", pa.int32(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("images", pa.list_(pa.binary()), nullable=False),  # one PNG a camera
        pa.field("proprio", pa.list_(pa.float32()), nullable=False),
        pa.field("action", pa.list_(pa.float32()), nullable=False),
    ]
)

EPISODE_SCHEMA = pa.schema(
    [
        pa.field("episode", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("task", pa.int32(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("dropped", pa.int32(), nullable=False),  # see EpisodeInfo
        pa.field("instruction", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class EpisodeInfo:
    """One row of the table of episodes.

    Attributes:
        attempt: which try of its task this was. seed: of its start.
        steps: T. dropped: steps of the recording that are not among them: no-ops, and those that nothing was seen
            before.
    """

    episode: str
    suite: str
    task: int
    attempt: int
    seed: int
    steps: int
    dropped: int
    instruction: str


@dataclass(frozen=True)
class Episode:
    """A whole demonstration.

    Attributes:
        images: T entries, each one PNG a camera. proprio: (T, P) float32 in the simulator's units.
        actions: (T, A) float32 in the environment's convention (LIBERO: gripper -1 open, +1 close).
    """

    info: EpisodeInfo
    images: list[list[bytes]]
    proprio: np.ndarray
    actions: np.ndarray


def encode_image(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> PNG, without loss."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def decode_image(data: bytes) -> np.ndarray:
    """PNG -> (H, W, 3) uint8.

    Raises:
        InputError: the bytes are no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:  # its message is an address in memory
        raise InputError("a demonstration holds bytes that are no picture: collect or import it again") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of them Pillow's
        raise InputError(f"a demonstration holds a broken picture ({error}): collect or import it again") from error


def episode_table(episode: Episode) -> pa.Table:
    """The rows of `steps/EPISODE.parquet`."""
    info = episode.info
    columns: dict[str, Any] = {
        "episode": [info.episode] * info.steps,
        "suite": [info.suite] * info.steps,
        "task": [info.task] * info.steps,
        "step": list(range(info.steps)),
        "instruction": [info.instruction] * info.steps,
        "images": episode.images,
        "proprio": list(np.asarray(episode.proprio, np.float32)),
        "action": list(np.asarray(episode.actions, np.float32)),
    }
    return pa.table(columns, schema=STEP_SCHEMA)


def check_schema(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Raise InputError when a Parquet file's columns are not `wanted`'s."""
    for field in wanted:
        if field.name not in found.names:
            raise InputError(f"{where} has no column {field.name!r}: it is no demonstration file of this project")
        # Parquet forgets the name of a list's element; only what it holds matters.
        if not found.field(field.name).type.equals(field.type) and str(found.field(field.name).type) != str(field.type):
            raise InputError(
                f"{where}: column {field.name!r} holds {found.field(field.name).type}, not {field.type}: "
                "collect or import the data again"
            )
