"""Backups of a cluster's MLflow database: whole, taken by a new head, and never in the way of the server."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server():
    """cluster/mlflow_server.py, which is a script and no module of the package."""
    spec = importlib.util.spec_from_file_location("cluster_mlflow_server", ROOT / "cluster/mlflow_server.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(database: Path, value: int) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table if not exists runs (value integer)")
        connection.execute("insert into runs values (?)", (value,))


def values(database: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("select value from runs order by value")]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_a_new_head_has_the_runs_of_the_last_one(server, tmp_path, store):
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    write(first, 1)
    backups = server.Backups(str(store), first)
    kept = store / "mlflow/backups"
    assert Path(backups.save()).parent == kept
    assert server.Backups(store.as_uri(), second).restore() is not None
    assert values(second) == [1]
    # One that has a database keeps it.
    write(second, 2)
    assert server.Backups(str(store), second).restore() is None
    assert values(second) == [1, 2]
    # And where there is nothing, the server makes one.
    assert server.Backups(str(tmp_path / "empty"), tmp_path / "third.db").restore() is None
    assert not (tmp_path / "third.db").exists()


def test_a_head_made_from_an_image_takes_what_came_after_the_image(server, tmp_path, store):
    imaged = tmp_path / "image"
    head = tmp_path / "head/mlflow.db"
    head.parent.mkdir()
    write(head, 1)
    server.Backups(str(store), head).save()
    shutil.copytree(head.parent, imaged)
    write(head, 2)
    server.Backups(str(store), head).save()  # on the same day, into the same file
    again = server.Backups(str(store), imaged / "mlflow.db")
    assert again.restore() == again.names()[-1]
    assert values(imaged / "mlflow.db") == [1, 2]
    aside = [file for file in imaged.glob("mlflow.db.*") if not file.name.endswith(("-wal", "-shm"))]
    assert [values(file) for file in aside] == [[1]]
    assert again.restore() is None
    # And from a later day's.
    later = Path(again.names()[-1]).with_name("2999-01-01.db")
    write(head, 3)
    with contextlib.closing(sqlite3.connect(head)) as source, contextlib.closing(sqlite3.connect(later)) as target:
        source.backup(target)
    assert again.restore() == str(later)
    assert values(imaged / "mlflow.db") == [1, 2, 3]


def test_a_server_that_is_only_started_again_keeps_what_no_backup_has(server, tmp_path, store, monkeypatch):
    database = tmp_path / "mlflow.db"
    write(database, 1)
    backups = server.Backups(str(store), database)
    path = Path(backups.save())
    write(database, 2)
    assert server.Backups(str(store), database).restore() is None
    # It ends right before its next backup is there, and right after.
    content = path.read_bytes()
    for arrives in (False, True):
        copy = server.fs.copy_files

        def end(*places, arrives=arrives, copy=copy, **systems):
            if arrives:
                copy(*places, **systems)
            raise OSError("ended")

        with monkeypatch.context() as patched:
            patched.setattr(server.fs, "copy_files", end)
            for _ in range(2):
                with pytest.raises(OSError, match="ended"):
                    backups.save()
        assert (path.read_bytes() != content) == arrives
        write(database, 3)
        assert server.Backups(str(store), database).restore() is None
    assert values(database) == [1, 2, 3, 3]
    # Nor is an older backup taken where the newest has gone.
    path.rename(path.with_name("2024-01-01.db"))
    assert server.Backups(str(store), database).restore() is None


def test_a_backup_holds_what_was_written_while_the_database_is_open(server, tmp_path, store):
    database = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("create table runs (value integer)")
        writer.execute("insert into runs values (1)")
        writer.commit()
        writer.execute("insert into runs values (2)")  # begun, and not ended
        backups = server.Backups(str(store), database)
        path = backups.save()
        assert values(Path(path)) == [1]
        assert backups.save() is None  # nothing new
        writer.commit()
        assert backups.save() == path
        assert values(Path(path)) == [1, 2]


def test_old_backups_make_room(server, tmp_path, store):
    database = tmp_path / "mlflow.db"
    write(database, 1)
    kept = store / "mlflow/backups"
    kept.mkdir(parents=True)
    for day in range(1, 29):
        (kept / f"2024-02-{day:02}.db").write_bytes(b"old")
    path = Path(server.Backups(str(store), database).save())
    names = sorted(file.name for file in kept.iterdir())
    assert len(names) == server.KEPT
    assert names[-1] == path.name
    assert names[0] == "2024-02-16.db"


def test_a_broken_backup_is_not_taken_for_a_database(server, tmp_path, store):
    kept = store / "mlflow/backups"
    kept.mkdir(parents=True)
    (kept / "2024-02-01.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(OSError, match="no whole database"):
        server.Backups(str(store), tmp_path / "mlflow.db").restore()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_does_not_answer_is_said_and_not_the_end(server, tmp_path, store, capsys):
    database = tmp_path / "mlflow.db"
    write(database, 1)
    backups = server.Backups(str(store), database)
    store.write_text("a file where the folder should be")
    assert not server._save(backups)
    assert "no backup: " in capsys.readouterr().out
    store.unlink()
    assert server._save(backups)
    assert values(Path(backups.names()[-1])) == [1]


def test_waiting_ends_without_a_server(server):
    from tests.support.ports import free_port

    assert server.wait("0.0.0.0", free_port(), 0.1) is False
