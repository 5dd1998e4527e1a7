"""A run whose folder is mirrored: at its end everything is in the store, and an outage costs the run nothing."""

from __future__ import annotations

import threading
import time

import pytest

from avavla_ray.errors import InputError
from avavla_ray.storage import mirror as mirrors
from avavla_ray.storage import transfers
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.mirror import Mirror, Unpublished
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import StoreUnreachable
from tests.support.snapshots import fetched, fill, held, publisher


@pytest.fixture
def root(tmp_path):
    return Place.of(f"file://{tmp_path}/store/run")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


class Outage:
    """A store that can be away."""

    def __init__(self, monkeypatch) -> None:
        self.away, self.asked = False, threading.Event()
        attempt = transfers.attempt

        def ask(place, action, verb="read"):
            if self.away:
                self.asked.set()
                raise StoreUnreachable(f"{place}: the store does not answer")
            return attempt(place, action, verb)

        monkeypatch.setattr(transfers, "attempt", ask)
        monkeypatch.setattr(mirrors, "RETRY_S", 0.02)


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def test_what_is_written_appears_while_the_run_goes_on_and_at_its_end(run, root, tmp_path, capsys):
    with Mirror(publisher(run, root), every=0.02):
        for number in (1, 2):
            fill(run, {"a": str(number).encode()})
            until(lambda: read_manifest(root).generation and fetched(root, tmp_path / "reader") == held(run))
        fill(run, {"a": b"3", "b": b"last"})
    assert fetched(root, tmp_path / "reader") == {"a": b"3", "b": b"last"}
    assert "published to file://" in capsys.readouterr().out


@pytest.mark.parametrize("error", [InputError("wrong"), SystemExit(1), KeyboardInterrupt(), RuntimeError("bug")])
def test_however_it_ends_all_is_published(run, root, tmp_path, error):
    with pytest.raises(type(error)), Mirror(publisher(run, root)):
        fill(run, {"a": b"1"})
        raise error
    assert fetched(root, tmp_path / "reader") == {"a": b"1"}


def test_an_outage_is_told_once_recorded_and_over_when_the_store_answers(run, root, tmp_path, monkeypatch):
    store, said = Outage(monkeypatch), []
    ours = publisher(run, root)
    store.away = True
    with Mirror(ours, every=0.02, say=said.append):
        for number in range(3):
            fill(run, {"a": str(number).encode()})
            store.asked.clear()
            assert store.asked.wait(20)
        store.away = False
        until(lambda: read_manifest(root).generation)
    assert [line.partition(";")[0].partition(" (")[0] for line in said] == [
        f"{root / 'manifest.json'}: the store does not answer",
        f"{root} takes files again and has all",
        f"published to {root}",
    ]
    (outage,) = read_manifest(root).outages
    assert outage["to"] >= outage["from"]
    assert "does not answer" in outage["reason"]
    assert fetched(root, tmp_path / "reader") == {"a": b"2"}


def test_a_store_that_stays_away_fails_a_run_that_went_well_and_says_where_everything_is(run, root, monkeypatch):
    store = Outage(monkeypatch)
    store_away = Mirror(publisher(run, root), every=0.02, patience=0.2, say=lambda line: None)
    with pytest.raises(Unpublished, match=r"does not answer\); all of it lies in .*/run: publish it with"), store_away:
        fill(run, {"a": b"1"})
        store.away = True
    assert held(run) == {"a": b"1"}


def test_a_store_that_stays_away_does_not_hide_why_the_run_failed(run, root, monkeypatch):
    store, said = Outage(monkeypatch), []
    ours = publisher(run, root)
    store.away = True
    started = time.monotonic()
    with pytest.raises(SystemExit, match="3"), Mirror(ours, told_to_end=0.1, say=said.append):
        fill(run, {"a": b"1"})
        raise SystemExit(3)
    assert time.monotonic() - started < 10
    assert "publish it with" in said[-1]


def test_a_store_that_comes_back_at_the_end_gets_everything(run, root, tmp_path, monkeypatch):
    store = Outage(monkeypatch)
    threading.Thread(target=lambda: (store.asked.wait(20), setattr(store, "away", False)), daemon=True).start()
    ours = publisher(run, root)
    with Mirror(ours):
        fill(run, {"a": b"1"})
        store.away = True
    assert fetched(root, tmp_path / "reader") == {"a": b"1"}


def test_a_run_that_was_overtaken_goes_on_and_is_told(run, root, tmp_path):
    said = []
    ours, other = publisher(run, root), tmp_path / "other"
    # The command that would replace the other's results is not offered.
    message = r"of another process[^:]*: end one.*; all of it lies in .*/run, and needs another address$"
    with pytest.raises(Unpublished, match=message), Mirror(ours, every=0.02, say=said.append):
        fill(other, {"a": b"theirs"})
        publisher(other, root).publish()
        fill(run, {"a": b"1"})
        until(lambda: said)
    assert "the run goes on" in said[0]
    assert fetched(root, tmp_path / "reader") == {"a": b"theirs"}


def test_a_fault_of_the_folder_is_an_outage_too(run, root, monkeypatch):
    said = []

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr("avavla_ray.storage.publisher.freeze", refuse)
    with pytest.raises(Unpublished), Mirror(publisher(run, root), every=0.02, patience=0.1, say=said.append):
        fill(run, {"a": b"1"})
        until(lambda: said)
    assert "Permission denied" in said[0]
