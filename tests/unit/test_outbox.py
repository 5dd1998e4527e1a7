"""Entries on their way to a store that is away, slow or full."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from avavla_ray.errors import DiskFull, InputError
from avavla_ray.outbox import Entry, NotTaken, Outbox


class Store:
    """Takes entries while it is `up`."""

    def __init__(self, up: bool = True) -> None:
        self.up = threading.Event()
        if up:
            self.up.set()
        self.taken: list[int] = []

    def deliver(self, entries: list[Entry]) -> None:
        if not self.up.is_set():
            raise NotTaken("away")
        self.taken += [entry["n"] for entry in entries]


def entries(*numbers: int) -> list[Entry]:
    return [{"n": number} for number in numbers]


def test_everything_arrives_in_order_and_the_file_is_gone(tmp_path: Path) -> None:
    store, path = Store(), tmp_path / "pending.jsonl"
    outbox = Outbox(path, store.deliver, "the store")
    for number in range(500):
        outbox.put(*entries(number))
    assert outbox.close(30.0) == 0
    assert store.taken == list(range(500))
    assert not path.exists()


def test_what_is_not_taken_is_on_disk_when_put_returns_and_goes_out_later(tmp_path: Path) -> None:
    store, path = Store(up=False), tmp_path / "pending.jsonl"
    outbox = Outbox(path, store.deliver, "the store")
    for number in range(5):
        outbox.put(*entries(number))
        assert json.loads(path.read_text().splitlines()[-1]) == {"n": number}
    begun = time.monotonic()
    assert outbox.close(0.3) == 5
    assert time.monotonic() - begun < 20

    again = Outbox(path, store.deliver, "the store")
    assert again.waiting == 5
    store.up.set()
    again.put(*entries(5))
    assert again.close(30.0) == 0
    assert store.taken == [0, 1, 2, 3, 4, 5]


def test_a_store_that_comes_back_gets_everything_before_what_is_new(tmp_path: Path) -> None:
    store = Store(up=False)
    outbox = Outbox(tmp_path / "pending.jsonl", store.deliver, "the store")
    outbox.put(*entries(*range(250)))
    time.sleep(0.2)
    store.up.set()
    outbox.put(*entries(250))
    assert outbox.close(30.0) == 0
    assert store.taken == list(range(251))


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "pending.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n": ')
    store = Store()
    outbox = Outbox(path, store.deliver, "the store")
    outbox.put(*entries(3))
    assert outbox.close(30.0) == 0
    assert store.taken == [1, 2, 3]


def test_a_file_is_one_outbox_s_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avavla_ray.outbox.DYING_S", 0.2)
    store, path = Store(up=False), tmp_path / "pending.jsonl"
    outbox = Outbox(path, store.deliver, "the store")
    outbox.put(*entries(0, 1))
    with pytest.raises(InputError, match="sending what waits in .* to the store already"):
        Outbox(path, store.deliver, "the store")
    outbox.put(*entries(2))
    store.up.set()
    assert outbox.close(30.0) == 0
    assert store.taken == [0, 1, 2]
    assert Outbox(path, store.deliver, "the store").close() == 0


def test_a_full_disk_neither_ends_the_run_nor_loses_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import avavla_ray.outbox as module

    append, full = module.append_lines, threading.Event()
    full.set()

    def append_if_there_is_room(path: Path, lines: list[str]) -> None:
        if full.is_set():
            raise DiskFull("no space left")
        append(path, lines)

    monkeypatch.setattr(module, "append_lines", append_if_there_is_room)
    store = Store(up=False)
    outbox = Outbox(tmp_path / "pending.jsonl", store.deliver, "the store")
    outbox.put(*entries(0, 1))
    time.sleep(0.1)
    full.clear()
    outbox.put(*entries(2))
    full.set()
    outbox.put(*entries(3))
    store.up.set()
    assert outbox.close(30.0) == 0
    assert list(dict.fromkeys(store.taken)) == [0, 1, 2, 3]
