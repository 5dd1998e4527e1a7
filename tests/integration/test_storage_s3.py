"""Runs and data sets in an S3 store that fails now and then, answers slowly, and loses connections."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.storage import stores, transfers
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.fetching import fetch
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.mirror import Mirror
from avavla_ray.storage.place import Place
from avavla_ray.storage.stores import StoreUnreachable
from avavla_ray.storage.transfers import listing
from tests.support.demonstration_data import make_dataset
from tests.support.snapshots import fetched, fill, held, publisher
from tests.support.unreliable_store import Proxy, s3_store, use_keys

LONG = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "settings.json": b"{}", "empty": b"", "curve.jsonl": b"1\n2\n", "checkpoint/config.json": b"c" * 300,
    "checkpoint/model.safetensors": random.Random(0).randbytes(6 << 20), "deep/er/x y+z=ü.txt": b"name",
}  # fmt: skip


@pytest.fixture(scope="module")
def store():
    with s3_store() as address:
        yield address


@pytest.fixture
def proxy(store):
    proxy = Proxy(store)
    yield proxy
    proxy.close()


@pytest.fixture
def root(proxy):
    return Place.of(proxy.uri(f"runs/{uuid.uuid4().hex}"))


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    use_keys(monkeypatch, tmp_path)
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path):
    fill(tmp_path / "run", FILES)
    return tmp_path / "run"


def test_a_run_is_published_and_fetched_and_what_is_unchanged_stays(run, root, proxy, tmp_path):
    ours = publisher(run, root)
    first = ours.publish()
    assert fetched(root, tmp_path / "reader") == FILES
    assert listing(root) == {
        "manifest.json": listing(root)["manifest.json"],
        **{first.where(name): len(content) for name, content in FILES.items()},
    }
    fill(run, {**FILES, "curve.jsonl": b"1\n2\n3\n"})
    proxy.asked.clear()
    second = ours.publish()
    assert fetched(root, tmp_path / "reader") == held(run)
    written = [path for method, path in proxy.asked if method in ("PUT", "POST")]
    assert len(written) == 2, written  # the ledger and the manifest: what docs/storage.md says that it costs
    fill(run, {"curve.jsonl": b"4\n"})
    third = ours.publish()
    assert set(listing(root)) == {
        "manifest.json", third.where("curve.jsonl"), *(second.where(name) for name in FILES),
    }  # fmt: skip


def now_and_then(*faults, share=0.3, seed=0):
    """Every request has this chance of one of the faults."""
    drawn = random.Random(seed)
    return lambda number, method, path: drawn.choice(faults) if drawn.random() < share else None


@pytest.mark.parametrize(
    "faults",
    [("500", "503", "cut", "lost", 0.2), *(pytest.param((one,), marks=LONG) for one in ("500", "503", "cut", "lost"))],
)
def test_a_store_that_fails_now_and_then_gets_and_gives_everything(run, root, proxy, tmp_path, monkeypatch, faults):
    monkeypatch.setattr(transfers, "PAUSES", (0.05, 0.1, 0.2))
    proxy.faults = now_and_then(*faults, share=0.2, seed=len(faults))
    ours = publisher(run, root)
    with Mirror(ours, every=0.05, say=lambda line: None):  # what fails all the same is done again
        pass
    fill(run, {**FILES, "curve.jsonl": b"1\n2\n3\n"})
    with Mirror(publisher(run, root), every=0.05, say=lambda line: None):
        pass
    end = time.monotonic() + 60
    while True:
        try:
            assert fetched(root, tmp_path / "reader") == held(run)
            break
        except StoreUnreachable:  # said in one line, and nothing torn is left
            assert time.monotonic() < end
    assert not list((tmp_path / "reader").rglob("*.tmp"))


@LONG
def test_an_answer_that_takes_seconds_is_waited_for(run, root, proxy, tmp_path):
    """curl takes 5 s more than it is told to notice that nothing comes: pyarrow's own 3 s would be over."""
    proxy.faults = lambda number, method, path: 9.0 if method == "PUT" and "manifest.json" in path else None
    publisher(run, root).publish()
    assert len([path for method, path in proxy.asked if method == "PUT" and "manifest.json" in path]) == 1
    proxy.faults = lambda number, method, path: 9.0 if "settings.json" in path and method == "GET" else None
    assert fetched(root, tmp_path / "reader") == FILES


@LONG
def test_a_store_that_falls_silent_is_given_up_and_the_old_generation_stays(run, root, proxy, tmp_path, monkeypatch):
    publisher(run, root).publish()
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    monkeypatch.setattr(stores, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(transfers, "PAUSES", (0.1,))
    fill(run, {**FILES, "settings.json": b"new"})
    again = Place.of(str(root))
    ours = publisher(run, again)
    proxy.faults = lambda number, method, path: 20.0 if method in ("PUT", "POST") else None
    started = time.monotonic()
    with pytest.raises(StoreUnreachable, match="the store does not answer") as raised:
        ours.publish()
    assert time.monotonic() - started < 40
    assert "\n" not in str(raised.value)
    proxy.faults = lambda number, method, path: None
    assert fetched(root, tmp_path / "reader") == FILES
    ours.publish()
    assert fetched(root, tmp_path / "reader") == held(run)


def test_a_reader_of_a_checkpoint_and_of_demonstrations_has_them_from_the_run(root, tmp_path, proxy):
    run = tmp_path / "run"
    make_dataset(run / "demos", episodes=3)
    fill(run / "checkpoint", {"config.json": b"{}", "weights": b"w" * 1000})
    publisher(run, root).publish()
    base, _, options = str(root).partition("?")
    assert held(local_copy(f"{base}/checkpoint?{options}")) == held(run / "checkpoint")
    metadata = open_mixture([f"{base}/demos?{options}"]).datasets[0]
    there, here = EpisodeReader(metadata), EpisodeReader(read_metadata(run / "demos"))
    proxy.faults = now_and_then("500", "cut", share=0.1)
    for index in range(3):
        np.testing.assert_array_equal(there.images(index, [0, 5, 9]), here.images(index, [0, 5, 9]))


def test_what_is_wrong_with_the_store_is_one_line(run, proxy, monkeypatch):
    monkeypatch.setattr(transfers, "PAUSES", ())
    for uri, message in (
        (proxy.uri("x").replace("robots", "robts"), "there is no bucket 'robts': correct its name"),
        ("s3://robots/x?endpoint_override=127.0.0.1:1&scheme=http", "the store does not answer"),
    ):
        root = Place.of(uri)
        with pytest.raises(InputError, match=message) as raised:
            publisher(run, root).publish()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("at", ["between files", "before the manifest"])
def test_a_publisher_that_is_killed_leaves_the_old_generation_and_the_next_one_clears_up(
    run, root, proxy, tmp_path, at
):
    publisher(run, root).publish()
    new = {**{name: content + b"new\n" for name, content in FILES.items()}, "more": b"m"}
    fill(run, new)
    children: list[subprocess.Popen] = []

    def kill(number, method, path):
        written = [asked for asked in proxy.asked if asked[0] == "PUT" and "/v000002-" in asked[1]]
        reached = len(written) >= 4 if at == "between files" else method == "PUT" and "/manifest.json" in path
        if reached:
            while not children:
                time.sleep(0.01)
            os.kill(children[0].pid, signal.SIGKILL)
            children[0].wait()
            return "cut"
        return None

    proxy.faults = kill
    children.append(
        subprocess.Popen([sys.executable, "-m", "avavla_ray.storage.publish", str(run), str(root)], cwd=ROOT)
    )
    assert children[0].wait(timeout=60) == -signal.SIGKILL
    proxy.faults = lambda number, method, path: None
    assert any("v000002-" in name for name in listing(root))
    assert fetched(root, tmp_path / "reader") == FILES
    newest = publisher(run, root).publish()
    assert newest.generation == 3
    assert fetched(root, tmp_path / "reader") == new
    assert not any("v000002-" in name for name in listing(root))


@LONG
@pytest.mark.ray
def test_a_job_collects_demonstrations_into_a_store_and_others_read_them_there(root, tmp_path, proxy):
    """The command as a user types it, again to get more, and a third one that reads what it made."""
    command = [
        sys.executable, "jobs/collect_demos.py", "--suite", "tabletop", "--num-runners", "1", "--image-size", "32",
        "--output", str(root),
    ]  # fmt: skip
    proxy.faults = now_and_then("500", "503", share=0.1)
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    for episodes, cache in ((1, "one"), (2, "other")):
        done = subprocess.run(
            [*command, "--tasks", "0", "--episodes", str(episodes)],
            cwd=ROOT, env={**environment, "AVAVLA_CACHE": str(tmp_path / cache)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        assert f"published to {root}" in done.stdout
        assert len(read_metadata(str(root)).episodes) == episodes
    assert "hushhush" not in done.stdout + done.stderr
    metadata = open_mixture([str(root)]).datasets[0]
    assert EpisodeReader(metadata).images(1, [0]).shape == (1, 2, 32, 32, 3)
    fetch(root, tmp_path / "back")
    assert read_metadata(tmp_path / "back").episodes == metadata.episodes
    assert read_manifest(root).generation >= 2
