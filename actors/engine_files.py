"""The learner ranks' engine state beside RLlib's own files of a checkpoint, on any pyarrow file system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENGINE_FOLDER = "engine"


def write_shares(shares: Sequence[dict[str, np.ndarray]], path: Any, filesystem: Any = None) -> None:
    """Put what every rank's `Learner.save` returned into the checkpoint at `path`, in place of what is there."""
    files, folder = _filesystem(path, filesystem)
    root = f"{folder}/{ENGINE_FOLDER}"
    files.create_dir(root, recursive=True)
    files.delete_dir_contents(root)
    for share in shares:
        for name, content in share.items():
            target = f"{root}/{name}"
            files.create_dir(str(Path(target).parent), recursive=True)
            with files.open_output_stream(target) as stream:
                stream.write(content.data)


def read_share(path: Any, filesystem: Any = None) -> dict[str, np.ndarray]:
    """All ranks' files of the checkpoint at `path`, for every rank's `Learner.load`."""
    import pyarrow.fs

    files, folder = _filesystem(path, filesystem)
    root = f"{folder}/{ENGINE_FOLDER}"
    share = {}
    for entry in files.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
        if entry.is_file:
            with files.open_input_stream(entry.path) as stream:
                share[str(Path(entry.path).relative_to(root))] = np.frombuffer(stream.read(), np.uint8)
    return share


def _filesystem(path: Any, filesystem: Any) -> tuple[Any, str]:
    """pyarrow file system and the path in it."""
    import pyarrow.fs

    if filesystem is not None:
        return filesystem, str(path)
    return pyarrow.fs.FileSystem.from_uri(str(path))
