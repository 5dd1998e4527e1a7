#!/usr/bin/env python
"""A cluster's MLflow server, on its head: runs in SQLite there; artifacts and backups of the runs in the store.

    cluster/mlflow_server.py --store s3://BUCKET --folder ~/mlflow --address 10.0.0.7 [--host 0.0.0.0] [--port 5000]
    cluster/mlflow_server.py --wait 120 --port 5000          until it answers

A head that is new takes the newest backup, so runs outlive the machine. The server is started again when it ends; on
SIGTERM it is ended, and what it had is backed up. `cluster/node.sh` starts this; jobs need no more than its address.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from pyarrow import fs

KEPT = 14  # backups: the newest of each of so many days
EVERY_S = 120.0
AGAIN_S = 5.0  # before a server that ended is started again


class Backups:
    """Copies of an SQLite file under STORE/mlflow/backups, one a day: whole at every moment, as a store writes files.

    Args:
        store: s3://..., gs://..., any other place that pyarrow knows, or a folder.
    """

    def __init__(self, store: str, database: Path) -> None:
        if "://" not in store:
            store = Path(store).expanduser().absolute().as_uri()
        self._files, root = fs.FileSystem.from_uri(store)
        self._folder, self._database = f"{root.rstrip('/')}/mlflow/backups", database
        self._note = database.with_suffix(".backed-up")  # the database is this backup, and what came after it
        self._saved = ""

    def names(self) -> list[str]:
        """Oldest first."""
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        return sorted(file.path for file in self._files.get_file_info(selector) if file.path.endswith(".db"))

    def _digest(self, path: str) -> str:
        with self._files.open_input_stream(path) as file:
            return hashlib.sha256(file.read()).hexdigest()

    def _outdated(self, newest: str) -> bool:
        """Whether another server has gone on in this store since the database here was last saved: that of a machine
        which came from an image of this one, or which this one is an image of. A server that was only started again
        finds the backup that it noted, or a database that has no note and so was never saved here."""
        if not self._note.exists():
            return False
        noted = self._note.read_text().splitlines()
        if newest < max(line.split(maxsplit=1)[1] for line in noted):
            return False
        return f"{self._digest(newest)} {newest}" not in noted

    def restore(self) -> str | None:
        """Take the newest backup where there is no database yet, or where that is older; it is then put aside. Returns
        the backup's path; None where nothing was done."""
        names = self.names()
        if not names or (self._database.exists() and not self._outdated(names[-1])):
            return None
        partial = self._database.with_suffix(".partial")
        fs.copy_files(
            names[-1], str(partial), source_filesystem=self._files, destination_filesystem=fs.LocalFileSystem()
        )
        _check(partial)
        content = hashlib.sha256(partial.read_bytes()).hexdigest()
        stamp = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"
        for name in ("", "-wal", "-shm"):  # SQLite would take the log of the old one for the new one's
            old = Path(f"{self._database}{name}")
            if old.exists():
                old.rename(f"{self._database}.{stamp}{name}")
        partial.rename(self._database)
        self._write_note([f"{content} {names[-1]}"])
        return names[-1]

    def _write_note(self, lines: list[str]) -> None:
        partial = self._note.with_suffix(".partial-note")
        partial.write_text("\n".join(lines) + "\n")
        partial.rename(self._note)

    def save(self) -> str | None:
        """Write today's backup. Returns its path; None where nothing has changed since the last one."""
        if not self._database.exists():
            return None
        copy = self._database.with_suffix(".backup")
        copy.unlink(missing_ok=True)
        with sqlite3.connect(self._database, timeout=60) as source, sqlite3.connect(copy) as target:
            source.backup(target)  # as of one moment, while the server writes
        source.close()
        target.close()
        _check(copy)
        content = hashlib.sha256(copy.read_bytes()).hexdigest()
        if content == self._saved:
            return None
        path = f"{self._folder}/{datetime.datetime.now(datetime.UTC).date().isoformat()}.db"
        before = self._note.read_text().splitlines() if self._note.exists() else []
        # Noted before it is there, and until it is, beside what may be there instead: whenever this process ends, the
        # database must not look outdated by its own backup.
        self._write_note([*before, f"{content} {path}"])
        self._files.create_dir(self._folder, recursive=True)
        fs.copy_files(str(copy), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._files)
        self._saved = content
        self._write_note([f"{content} {path}"])
        for old in self.names()[:-KEPT]:
            self._files.delete_file(old)
        return path


def _check(path: Path) -> None:
    """Raises OSError where it is no whole database."""
    connection = sqlite3.connect(path)
    try:
        said = connection.execute("pragma quick_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        said = str(error)
    finally:
        connection.close()
    if said != "ok":
        raise OSError(f"{path} is no whole database: {said}")


def serve(store: str, folder: Path, host: str, port: int, address: str) -> int:
    """Until SIGTERM. Returns the exit status.

    Args:
        address: of this machine, as others call it. MLflow answers to no other name, so that no web page which someone
            here looks at can reach it by a name of its own; left to itself it would refuse a public address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / "lock", "a")  # noqa: SIM115  held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another one serves this folder", flush=True)
        return 0
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)  # for whoever wants to end it
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    database = folder / "mlflow.db"
    backups = Backups(store, database)
    taken = backups.restore()
    print(f"runs of {taken or database}", flush=True)
    artifacts = store.rstrip("/") + "/mlflow/artifacts"
    names = [name for known in ("localhost", "127.0.0.1", address) for name in (known, f"{known}:*")]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
        "--artifacts-destination", artifacts, "--host", host, "--port", str(port), "--workers", "2",
        "--allowed-hosts", ",".join(dict.fromkeys(names)),
    ]  # fmt: skip
    server = subprocess.Popen(command)
    next_backup = time.monotonic() + EVERY_S
    while not leaving.wait(1.0):
        if server.poll() is not None:
            print(f"the server ended with {server.returncode}; it is started again", flush=True)
            leaving.wait(AGAIN_S)
            server = subprocess.Popen(command)
        if time.monotonic() >= next_backup:
            _save(backups)
            next_backup = time.monotonic() + EVERY_S
    server.terminate()
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
    return 0 if _save(backups) else 1


def _save(backups: Backups) -> bool:
    """Whether the store took it; one that does not answer is asked again at the next backup."""
    try:
        path = backups.save()
    except (OSError, sqlite3.Error) as error:
        print(f"no backup: {error}", flush=True)
        return False
    if path is not None:
        print(f"backed up to {path}", flush=True)
    return True


def wait(host: str, port: int, seconds: float) -> bool:
    """Whether a server that listens at `host` answers at the port within so many seconds."""
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with opener.open(f"http://{host}:{port}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", help="s3://BUCKET, gs://BUCKET or a folder")
    parser.add_argument("--folder", type=Path, help="where the database is")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens")
    parser.add_argument("--address", default="127.0.0.1", help="how other machines call it")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="only wait for one that runs")
    given = parser.parse_args()
    if given.wait is not None:
        return 0 if wait(given.host, given.port, given.wait) else 1
    if given.store is None or given.folder is None:
        parser.error("give --store and --folder")
    return serve(given.store, given.folder.expanduser().absolute(), given.host, given.port, given.address)


if __name__ == "__main__":
    sys.exit(main())
