"""Snapshots: what is published is what is fetched, whole, whenever the publisher is killed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.storage import manifest as manifests
from avavla_ray.storage.fetching import bring
from avavla_ray.storage.freeze import scan
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.notes import Notes
from avavla_ray.storage.place import Place
from avavla_ray.storage.publisher import Overtaken, Publisher
from tests.support.snapshots import Killed, Killer, fetched, fill, held, publisher, stored

NAMES = ("settings.json", "curve.csv", "checkpoint/weights", "checkpoint/deep/er/x y", "empty", "ünï.txt")
CONTENT = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=40), min_size=1, max_size=len(NAMES))


@pytest.fixture
def root(tmp_path):
    return Place.of(f"file://{tmp_path}/store/run")


@settings(max_examples=25)
@given(st.lists(st.tuples(CONTENT, st.integers(0, 30), st.booleans(), st.booleans()), min_size=1, max_size=5))
def test_a_reader_has_one_whole_generation_whenever_the_publisher_is_killed(steps):
    """Each step: what the folder holds, the call of the store to be killed at (0: none), before it or after it, and
    whether another process of the same machine publishes next."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        root, run = Place.of(f"file://{made}/store/run"), folder / "run"
        run.mkdir()
        ours, seen, published = publisher(run, root), {}, False
        for number, (content, kill, after, again) in enumerate(steps):
            fill(run, content)
            ours = publisher(run, root) if again else ours
            try:
                with Killer(kill or None, after):
                    ours.publish()
                seen, published = content, published or bool(content)
            except Killed:
                ours = publisher(run, root)
                newest = read_manifest(root)
                if published or newest.generation:
                    now = fetched(root, folder / f"seen{number}")
                    assert now in (seen, content)
                    seen, published = now, True
            if published:
                assert fetched(root, folder / "reader") == seen
        # The next two publications clear up what killed ones left: the newest generation and the one before stay.
        for last in ({"a": b"1"}, {"a": b"22"}, {"a": b"333"}):
            fill(run, last)
            publisher(run, root).publish()
        assert fetched(root, folder / "reader") == last
        assert len(stored(folder / "store" / "run")) == 2


def test_only_what_changed_is_sent_and_the_generation_before_stays_for_its_readers(tmp_path, root):
    run, store = tmp_path / "run", tmp_path / "store/run"
    fill(run, {"big": b"b" * 1000, "small": b"1"})
    ours = publisher(run, root)
    first = ours.publish()
    assert (first.generation, ours.passed) == (1, 1001)
    fill(run, {"big": b"b" * 1000, "small": b"2"})
    second = ours.publish()
    assert ours.passed == 1002
    assert second.files["big"] == first.files["big"]
    # A reader that has the first manifest still finds all of it.
    bring(root, first, tmp_path / "reader", first.files)
    assert held(tmp_path / "reader") == {"big": b"b" * 1000, "small": b"1"}
    fill(run, {"big": b"b" * 1000, "small": b"3"})
    third = ours.publish()
    assert stored(store) == {third.where("big"), second.where("small"), third.where("small")}
    with pytest.raises(FileNotFoundError):
        bring(root, first, tmp_path / "late", first.files)
    assert fetched(root, tmp_path / "late") == held(run)


def test_nothing_new_is_no_generation(tmp_path, root):
    run = tmp_path / "run"
    fill(run, {"a": b"1"})
    ours = publisher(run, root)
    ours.publish()
    assert not ours.changed()
    (run / "a").touch()
    assert ours.changed()
    assert ours.publish().generation == 1
    assert not ours.changed()
    # A process that knows nothing of what was published compares hashes, and sends nothing.
    another = publisher(run, root, tmp_path / "other.json")
    assert another.publish().generation == 1
    assert another.passed == 0


def test_nothing_at_all_is_published_as_nothing(tmp_path, root):
    assert publisher(tmp_path / "none", root).publish().generation == 0
    assert not (tmp_path / "store").exists()


def test_a_folder_that_was_lost_is_not_published_as_nothing(tmp_path, root):
    run = tmp_path / "run"
    fill(run, {"a": b"1"})
    ours = publisher(run, root)
    ours.publish()
    for lose in ((run / "a").unlink, run.rmdir):
        lose()
        with pytest.raises(InputError, match=r"/run is empty or gone, .* has 1 files of it: these stay; repeat"):
            ours.publish()
    assert fetched(root, tmp_path / "reader") == {"a": b"1"}


def test_noise_stays_here(tmp_path, root):
    run = tmp_path / "run"
    noise = (".lock", ".run.lock", ".x.12345678.tmp", ".x.12345678.tmp/y", ".old.1.old", "ray/x", "bc/ray/x/y")
    fill(run, {"bc/kept": b"1", ".hidden": b"2", **{name: b"" for name in noise if name != ".x.12345678.tmp"}})
    assert set(publisher(run, root).publish().files) == {"bc/kept", ".hidden"}


def test_what_another_process_publishes_itself_is_left_to_it(tmp_path, root):
    run = tmp_path / "run"
    fill(run, {"mine": b"1", "checkpoints/.apart": b"", "checkpoints/step-1/w": b"2"})
    assert set(publisher(run, root).publish().files) == {"mine"}


def test_a_second_writer_is_refused_and_the_first_one_too_when_it_was_overtaken(tmp_path, root):
    one, other = tmp_path / "one", tmp_path / "other"
    fill(one, {"a": b"1"})
    fill(other, {"a": b"2"})
    first, second = publisher(one, root), publisher(other, root)
    first.publish()
    with pytest.raises(Overtaken, match=r"generation 1 of another process, this one knows 0: end one of the two"):
        second.publish()
    # Also when it comes between the last look and the end of the upload.
    third = publisher(other, root)
    fill(one, {"a": b"1", "b": b"more"})
    upload = third._upload

    def meanwhile(frozen, at):
        upload(frozen, at)
        first.publish()

    third._upload = meanwhile
    with pytest.raises(Overtaken):
        third.publish()
    assert fetched(root, tmp_path / "reader") == held(one)


def test_an_answer_that_was_lost_does_not_look_like_another_writer(tmp_path, root):
    run = tmp_path / "run"
    fill(run, {"a": b"1"})
    ours = publisher(run, root)
    with Killer() as counted:
        ours.publish()
    fill(run, {"a": b"2"})
    for call in range(1, counted.calls + 3):
        fill(run, {"a": str(call).encode()})
        with pytest.raises((Killed, AssertionError)), Killer(call, after=True):
            ours.publish()
            raise AssertionError("it has fewer calls")
        ours.publish()
        assert fetched(root, tmp_path / "reader") == held(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "avavla_ray.policy"}, "is of something else"),
        ({"version": 2}, "has version 2, this release reads 1: update"),
        ({"generation": 7}, "was altered after it was written"),
        ({"files": None}, "is damaged|was altered"),
    ],
)
def test_a_foreign_newer_or_altered_manifest_is_refused(tmp_path, root, monkeypatch, change, message):
    monkeypatch.setattr(manifests, "_TORN_SECONDS", ())
    fill(tmp_path / "run", {"a": b"1"})
    ours = publisher(tmp_path / "run", root)
    ours.publish()
    path = tmp_path / "store/run/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    fill(tmp_path / "run", {"a": b"2"})
    for act in (ours.publish, lambda: fetched(root, tmp_path / "reader")):
        with pytest.raises(InputError, match=message) as raised:
            act()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", ""])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path, root, monkeypatch, name):
    monkeypatch.setattr(manifests, "_TORN_SECONDS", ())
    entry = {"at": "v000001-00000000", "size": 0, "sha256": ""}
    manifests.write_manifest(root, manifests.Manifest(1, {name: entry}))
    with pytest.raises(InputError, match="altered"):
        fetched(root, tmp_path / "reader")


def test_what_was_damaged_in_the_store_is_not_taken(tmp_path, root, monkeypatch):
    monkeypatch.setattr("avavla_ray.storage.transfers.PAUSES", ())
    run = tmp_path / "run"
    fill(run, {"a": b"11", "b": b"2"})
    newest = publisher(run, root).publish()
    (tmp_path / "store/run" / newest.where("a")).write_bytes(b"12")
    with pytest.raises(InputError, match=r"a is not what was published \(2 of 2 bytes\): publish it again"):
        fetched(root, tmp_path / "reader")
    assert not (tmp_path / "reader/a").exists()


def test_fetching_brings_what_differs_only(tmp_path, root, monkeypatch):
    run, reader = tmp_path / "run", tmp_path / "reader"
    fill(run, {"same": b"1", "other": b"2", "missing": b"3"})
    publisher(run, root).publish()
    fill(reader, {"same": b"1", "other": b"x", "superfluous": b"4"})
    before = scan(reader)["same"]
    asked = []
    monkeypatch.setattr(
        "avavla_ray.storage.fetching.download",
        lambda place, path, entry, passed, get=bring.__globals__["download"]: (
            asked.append(path.name),
            get(place, path, entry, passed),
        ),
    )
    assert fetched(root, reader) == held(run)
    assert sorted(asked) == ["missing", "other"]
    assert scan(reader)["same"] == before


def test_there_is_nothing_to_fetch(tmp_path, root):
    with pytest.raises(InputError, match="nothing is published at file:///.*run: give the address of a run"):
        fetched(root, tmp_path / "reader")


def test_rubbish_of_notes_costs_hashing_only(tmp_path, root):
    run, notes = tmp_path / "run", tmp_path / "notes.json"
    fill(run, {"a": b"1"})
    publisher(run, root, notes).publish()
    for content in ("", "[]", '{"x": 3}', '{"x": {"a": 1}}'):
        notes.write_text(content)
        ours = Publisher(run, root, Notes(notes))
        assert ours.publish().generation == 1
        assert ours.passed == 0
