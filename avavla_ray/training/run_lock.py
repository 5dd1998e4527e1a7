"""One writer at a time in a run's folder, even while its predecessor is still dying."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from avavla_ray.errors import InputError

LOCK = ".lock"
POLL = 0.05


class RunLock:
    """Holds `folder` for this process inside a `with` block; the lock ends with the process, however it ends.

    A lock of the file system (flock): it works between machines where the file system is shared and knows locks. A
    child that is forked inside the block, without starting another program, holds it too until it ends.

    Args:
        folder: made if it is not there.
        patience: seconds to wait for a predecessor; a killed one is gone only when its memory is freed.
        name: of the lock's file; locks of different names know nothing of each other.
    """

    def __init__(self, folder: str | Path, patience: float = 60.0, name: str = LOCK) -> None:
        self.folder, self.patience, self.name = Path(folder), patience, name
        self._stream: TextIO | None = None

    def __enter__(self) -> RunLock:
        """Wait for the lock and write this process's number and machine into its file.

        Raises:
            InputError: another process kept it, which is named; or the folder cannot be written or locked.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = open(self.folder / self.name, "a+", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written ({error.strerror}): make it writable or give another"
            ) from error
        try:
            self._wait(stream)
            stream.truncate(0)
            os.write(stream.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            stream.close()
            raise InputError(
                f"{self.folder} cannot be written ({error.strerror}): mend that or give another"
            ) from error
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # The file stays: whoever waits for it has it open, and would hold a lock on nothing.
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _wait(self, stream: TextIO) -> None:
        end = time.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    stream.seek(0)
                    holder = stream.read().strip() or "another process"
                    raise InputError(
                        f"{self.folder} is being written by {holder}: wait for it or end it, or give another folder"
                    ) from error
            except OSError as error:
                raise InputError(
                    f"{self.folder} cannot be locked ({error.strerror}): give a folder on a file system with locks"
                ) from error
            time.sleep(POLL)
