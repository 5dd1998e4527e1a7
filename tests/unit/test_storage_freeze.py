"""A folder at one moment, while a run writes into it."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from avavla_ray.errors import InputError
from avavla_ray.files import append_line, write_json
from avavla_ray.storage import freeze as freezing
from avavla_ray.storage.freeze import freeze, is_torn, scan
from avavla_ray.storage.place import Place
from tests.support.snapshots import fetched, fill, publisher


def content(frozen):
    return {name: each.path.read_bytes()[: each.size] for name, each in frozen.items()}


def test_what_is_replaced_or_removed_afterwards_stays_as_it_was(tmp_path):
    run = tmp_path / "run"
    fill(run, {"a": b"1", "gone/b": b"2"})
    marks, frozen = freeze(run, {}, tmp_path / "links")
    assert marks == scan(run)
    fill(run, {"a": b"new"})
    assert content(frozen) == {"a": b"1", "gone/b": b"2"}
    assert not any(is_torn(name, each) for name, each in frozen.items())


def test_of_a_ledger_whole_lines_are_taken(tmp_path):
    run = tmp_path / "run"
    lines = b"".join(b"%06d %s\n" % (number, b"x" * 997) for number in range(100))
    fill(run, {"a.jsonl": lines + b"torn" * 30_000, "b.jsonl": b"torn only", "c.jsonl": b"1\n2\n", "d.jsonl": b""})
    _, frozen = freeze(run, {}, tmp_path / "links")
    with (run / "c.jsonl").open("ab") as stream:
        stream.write(b"3\n")
    assert content(frozen) == {"a.jsonl": lines, "b.jsonl": b"", "c.jsonl": b"1\n2\n", "d.jsonl": b""}
    assert not is_torn("c.jsonl", frozen["c.jsonl"])
    os.truncate(run / "c.jsonl", 2)  # as an outbox does, when all has been sent
    assert is_torn("c.jsonl", frozen["c.jsonl"])


def test_a_file_that_is_written_in_place_waits_until_it_rests(tmp_path, monkeypatch):
    run, root = tmp_path / "run", Place.of(f"file://{tmp_path}/store")
    fill(run, {"rests": b"1", "video.mp4": b"old"})
    ours = publisher(run, root)
    ours.publish()
    scans = [0]

    def writing(folder, look=freezing.scan):
        scans[0] += 1
        if scans[0] < 4:
            with (run / "video.mp4").open("ab") as stream:
                stream.write(b"+")
        return look(folder)

    monkeypatch.setattr(freezing, "scan", writing)
    fill(run, {"rests": b"2", "video.mp4": b"old"})
    ours.publish()
    assert fetched(root, tmp_path / "reader") == {"rests": b"2", "video.mp4": b"old"}
    assert ours.changed()
    scans[0] = 4
    ours.publish()
    assert fetched(root, tmp_path / "reader") == {"rests": b"2", "video.mp4": b"old++"}


def test_a_file_that_changes_while_it_is_sent_is_left_as_it_was(tmp_path, monkeypatch):
    run, root = tmp_path / "run", Place.of(f"file://{tmp_path}/store")
    fill(run, {"a": b"old", "new": b"1"})
    ours = publisher(run, root)

    def upload(path, place, size, passed, send=publisher.__globals__["Publisher"]._upload.__globals__["upload"]):
        entry = send(path, place, size, passed)
        with path.open("ab") as stream:
            stream.write(b"+")
        return entry

    monkeypatch.setattr("avavla_ray.storage.publisher.upload", upload)
    assert ours.publish().files == {}
    monkeypatch.undo()
    ours.publish()
    assert fetched(root, tmp_path / "reader") == {"a": b"old+", "new": b"1+"}


def test_without_links_a_generation_is_one_that_was_all_the_same(tmp_path, monkeypatch):
    run, root = tmp_path / "run", Place.of(f"file://{tmp_path}/store")
    fill(run, {"a": b"1", "b": b"1"})
    ours = publisher(run, root)
    ours.publish()

    def no_links(*_, **__):
        raise OSError("not supported")

    def upload(path, place, size, passed, send=publisher.__globals__["Publisher"]._upload.__globals__["upload"]):
        entry = send(path, place, size, passed)
        if path.name == "a":
            fill(run, {"a": b"3", "b": b"2"})
        return entry

    monkeypatch.setattr(freezing.os, "link", no_links)
    monkeypatch.setattr("avavla_ray.storage.publisher.upload", upload)
    fill(run, {"a": b"2", "b": b"2"})
    ours.publish()
    assert fetched(root, tmp_path / "reader") == {"a": b"3", "b": b"2"}


def test_a_folder_that_never_rests_is_told(tmp_path, monkeypatch):
    fill(tmp_path / "run", {"a": b"1"})
    monkeypatch.setattr(freezing, "PAUSE_S", 0)
    numbers = iter(range(1000))

    def scan_and_change(folder, look=freezing.scan):
        fill(tmp_path / "run", {"a": str(next(numbers)).encode()})
        return look(folder)

    monkeypatch.setattr(freezing, "scan", scan_and_change)
    with pytest.raises(InputError, match="changes all the time"):
        freeze(tmp_path / "run", {}, tmp_path / "links")


def test_every_generation_of_a_run_that_writes_on_is_one_that_was(tmp_path):
    """A writer adds to a ledger, then puts its length into a file, then replaces a checkpoint of two files, as runs
    do: in no generation may the ledger be behind the file, or a line or a checkpoint torn."""
    run, root = tmp_path / "run", Place.of(f"file://{tmp_path}/store")
    run.mkdir()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            append_line(run / "curve.jsonl", json.dumps({"n": number, "pad": "x" * 300}))
            write_json(run / "position.json", number)
            beside = run / ".step.1.tmp"
            beside.mkdir()
            for name in ("weights", "state"):
                (beside / name).write_text(str(number))
            beside.rename(run / f"step-{number}")
            if number > 2:
                (run / f"step-{number - 2}").rename(run / ".gone.tmp")
                for name in ("weights", "state"):
                    (run / ".gone.tmp" / name).unlink()
                (run / ".gone.tmp").rmdir()
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    ours, generations = publisher(run, root), 0
    try:
        while not (run / "position.json").exists():
            time.sleep(0.001)
        for _ in range(12):
            ours.publish()
            seen = fetched(root, tmp_path / "reader")
            lines = [json.loads(line)["n"] for line in seen.get("curve.jsonl", b"").splitlines()]
            assert lines == list(range(1, len(lines) + 1))
            if "position.json" in seen:
                assert len(lines) >= json.loads(seen["position.json"])
                generations += 1
            steps = {name.partition("/")[0] for name in seen if name.startswith("step-")}
            assert len(steps) <= 3
            for step in steps:
                number = step.removeprefix("step-").encode()
                assert [seen.get(f"{step}/{name}") for name in ("weights", "state")] == [number, number]
    finally:
        stop.set()
        writer.join()
    assert generations > 5
