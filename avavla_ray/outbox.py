"""What has to reach a store that may be away: kept on disk, and sent in order by a thread, so that nobody waits for it.

An entry is in the file, flushed to disk, before `put` returns, and leaves it when the store has taken it. A process
that is killed in between sends it once more when it is started again: the store must not mind to be told twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.files import append_lines

BATCH = 100  # entries
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 15.0
DYING_S = 5.0  # a process that has been ended lets go of the file in that time

Entry = dict[str, Any]


class NotTaken(Exception):
    """The store did not take the entries, for a reason that may pass."""


class Outbox:
    """Entries on their way to a store.

    Args:
        path: of the file; what an earlier process left in it is sent first.
        deliver: sends entries, in order. Raises NotTaken; called in another thread.
        store: what messages call it.

    Attributes:
        waiting: entries that the store has not taken yet.

    Raises:
        InputError: another process, or another outbox, has the file: what either sends would be lost to the other.
    """

    def __init__(self, path: Path, deliver: Callable[[list[Entry]], None], store: str) -> None:
        self.path, self._deliver, self._store = path, deliver, store
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._offset = 0  # what lies before it in the file has been taken
        self._unwritten: list[Entry] = []  # for want of disk space
        self._sending_unwritten = False
        self._closing = self._stopped = False
        self._told_of_outage = self._told_of_disk = False
        self._held = _hold(path, store)
        self.waiting = _mend(path)
        self._thread: threading.Thread | None = None
        if self.waiting:
            print(f"{self.waiting} entries for {store} wait in {path}: they are sent now", flush=True)
            self._start()

    def put(self, *entries: Entry) -> None:
        """Keep entries, to be sent after all that are here."""
        with self._changed:
            self._unwritten += entries
            self.waiting += len(entries)
            self._write()
            self._start()
            self._changed.notify_all()

    def close(self, grace: float = 10.0) -> int:
        """Wait until the store has taken everything, but not longer than `grace` seconds; the rest stays on disk.

        Returns:
            How many entries wait there.
        """
        end = time.monotonic() + grace
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self.waiting and self._thread is not None and self._thread.is_alive() and time.monotonic() < end:
                self._changed.wait(max(0.0, min(0.5, end - time.monotonic())))
            self._stopped, self._sending_unwritten = True, False
            self._changed.notify_all()
            self._write()
            if not self.waiting:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
            os.close(self._held)  # and with it whoever waits to have the file has it
            return self.waiting

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def _write(self) -> None:
        """To disk, if it has room; held in memory until it has."""
        if not self._unwritten or self._sending_unwritten:
            return
        try:
            append_lines(self.path, [json.dumps(entry) for entry in self._unwritten])
            self._unwritten = []
        except InputError as error:
            if not self._told_of_disk:
                print(f"{error}; what {self._store} is to get is kept in memory until then", flush=True)
            self._told_of_disk = True

    def _run(self) -> None:
        pause = FIRST_WAIT_S
        while True:
            with self._changed:
                while not self.waiting and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                entries, after = self._next()
                if not entries:  # somebody has removed the file
                    self.waiting = 0
                    continue
            try:
                self._deliver(entries)
            except NotTaken as error:
                self._tell(f"{self._store} takes nothing ({error}): what it is to get waits in {self.path}")
                with self._changed:
                    self._sending_unwritten = False
                    self._pause(pause)
                pause = min(2 * pause, LONGEST_WAIT_S)
            else:
                pause = FIRST_WAIT_S
                with self._changed:
                    if self._stopped:  # the file may be another process's by now, which sends them once more
                        return
                    self._taken(len(entries), after)
                    self._changed.notify_all()

    def _next(self) -> tuple[list[Entry], int | None]:
        """The next entries and where the file goes on behind them; None for entries that are in memory only."""
        self._write()
        entries: list[Entry] = []
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as stream:
            stream.seek(self._offset)
            while len(entries) < BATCH and (line := stream.readline()):
                entries.append(json.loads(line))
            if entries:
                return entries, stream.tell()
        self._sending_unwritten = True
        return self._unwritten[:BATCH], None

    def _taken(self, count: int, after: int | None) -> None:
        self.waiting -= count
        if after is None:
            del self._unwritten[:count]
            self._sending_unwritten = False
        else:
            self._offset = after
            if not self.waiting or after == self.path.stat().st_size:
                os.truncate(self.path, 0)
                self._offset = 0
        if self._told_of_outage and not self.waiting:
            self._told_of_outage = False
            print(f"{self._store} answers again and has everything", flush=True)

    def _tell(self, message: str) -> None:
        if not self._told_of_outage:
            print(message, flush=True)
        self._told_of_outage = True

    def _pause(self, seconds: float) -> None:
        """Before the next attempt; shorter where somebody waits for it."""
        end = time.monotonic() + seconds
        while not self._stopped and time.monotonic() < end:
            if self._closing:
                end = min(end, time.monotonic() + 0.5)
            self._changed.wait(max(0.0, end - time.monotonic()))


def _hold(path: Path, store: str) -> int:
    """A descriptor of the file, which no other has locked; the lock ends with it, or with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    end = time.monotonic() + DYING_S
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(held)
                raise InputError(
                    f"a process is sending what waits in {path} to {store} already: let it, or end it first"
                ) from None
            time.sleep(0.1)
        except OSError:  # a file system that knows no locks: there two are not noticed
            return held


def _mend(path: Path) -> int:
    """Cut off a line that a killed process did not finish; the number of entries that are left."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content.count(b"\n")
