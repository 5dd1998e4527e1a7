"""What is read from a store: found inside a published run, or as somebody copied it there."""

from __future__ import annotations

import json
import pickle
import shutil
import threading

import numpy as np
import pytest
import torch

from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.policy.folder import open_folder, write_folder
from avavla_ray.storage import names
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.fetching import bring
from avavla_ray.storage.place import Place
from tests.support.demonstration_data import make_dataset
from tests.support.snapshots import fill, held, publisher


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(tmp_path):
    """A published run: a checkpoint, a preset, and a data set."""
    folder = tmp_path / "run"
    write_checkpoint(folder / "checkpoint")
    make_dataset(folder / "demos", episodes=2)
    fill(folder / "presets", {"exit.json": b"{}"})
    return folder


@pytest.fixture
def root(tmp_path, run):
    root = Place.of(f"file://{tmp_path}/store/runs/x")
    publisher(run, root).publish()
    return root


def write_checkpoint(folder):
    """As little as `open_folder` takes."""
    weights = {"a": torch.zeros(3)}
    write_folder(folder, weights.items(), config={}, statistics={}, stage="bc", provenance={})


def test_a_checkpoint_is_found_inside_the_run_that_was_published(run, root, cache):
    copy = local_copy(f"{root}/checkpoint/")
    assert copy.parent.parent == cache / "copies"
    assert copy.name == "checkpoint"
    assert open_folder(copy).digest == open_folder(run / "checkpoint").digest
    assert names.named(copy / "config.json") == f"{root}/checkpoint/config.json"
    assert local_copy(f"{root}/presets/exit.json").read_bytes() == b"{}"
    assert held(local_copy(str(root))) == held(run)


def test_the_same_content_is_one_copy_and_another_content_another(run, root, monkeypatch):
    copy = local_copy(f"{root}/checkpoint")
    fill(run / "presets", {"exit.json": b"[]"})
    publisher(run, root).publish()
    with monkeypatch.context() as patch:
        patch.setattr("avavla_ray.storage.copies.bring", None)  # nothing is brought again
        assert local_copy(f"{root}/checkpoint") == copy
    assert local_copy(f"{root}/presets/exit.json").read_bytes() == b"[]"


def test_a_copy_that_was_cut_is_made_again(root):
    copy = local_copy(f"{root}/checkpoint")
    (copy / "config.json").write_text("")
    open_folder(local_copy(f"{root}/checkpoint"))


def test_a_checkpoint_that_somebody_copied_there_is_verified_by_its_own_manifest(tmp_path, run, monkeypatch):
    monkeypatch.setattr("avavla_ray.storage.transfers.PAUSES", ())
    shutil.copytree(run / "checkpoint", tmp_path / "store/plain")
    (tmp_path / "store/plain/notes.txt").write_text("is not of it")
    address = f"file://{tmp_path}/store/plain"
    assert held(local_copy(address)) == held(run / "checkpoint")
    weights = tmp_path / "store/plain/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match="model.safetensors is not what was published"):
        local_copy(address)
    assert not list((tmp_path / "cache").rglob("model.safetensors"))


def test_a_manifest_that_leads_out_of_the_checkpoint_is_not_followed(tmp_path):
    fill(tmp_path / "store/plain", {"a": b"1"})
    manifest = {"files": {"../../secret": {"size": 1, "sha256": "0"}}}
    (tmp_path / "store/plain/manifest.json").write_text(json.dumps(manifest))
    assert set(held(local_copy(f"file://{tmp_path}/store/plain"))) == {"a", "manifest.json"}


def test_a_single_file_is_not_read_into_memory(tmp_path, cache, monkeypatch):
    fill(tmp_path / "store", {"weights": b"w" * 1000})
    monkeypatch.setattr("avavla_ray.storage.copies.read_bytes", None)
    assert local_copy(f"file://{tmp_path}/store/weights").read_bytes() == b"w" * 1000
    assert [path.name for path in (cache / "copies").iterdir() if path.name.startswith(".")] == []


def test_new_content_of_the_same_size_is_seen(tmp_path):
    address = f"file://{tmp_path}/store/folder"
    for content in (b"old", b"new"):
        fill(tmp_path / "store", {"folder/a": content})
        assert held(local_copy(address)) == {"a": content}


def test_any_other_folder_or_file_is_copied_as_it_is(tmp_path):
    fill(tmp_path / "store", {"folder/a": b"1", "folder/b/c": b"2", "recipe.json": b"{}"})
    assert held(local_copy(f"file://{tmp_path}/store/folder")) == {"a": b"1", "b/c": b"2"}
    assert local_copy(f"file://{tmp_path}/store/recipe.json").read_bytes() == b"{}"


def test_what_is_not_there_is_named(tmp_path, root):
    for address, message in (
        (f"{root}/best", r"there is nothing at .*/runs/x/best: the run at .*/runs/x has checkpoint, demos, presets"),
        (f"file://{tmp_path}/store/y", "there is nothing at .*/store/y: correct the address"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            local_copy(address)
        assert "\n" not in str(raised.value)


def test_processes_that_fetch_at_once_get_one_whole_copy(root, run, monkeypatch):
    made, copies = [], []

    def slowly(*arguments, get=bring, **options):
        made.append(1)
        get(*arguments, **options)

    monkeypatch.setattr("avavla_ray.storage.copies.bring", slowly)
    threads = [threading.Thread(target=lambda: copies.append(local_copy(f"{root}/checkpoint"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(copies)) == 1
    assert held(copies[0]) == held(run / "checkpoint")


def test_a_published_data_set_is_read_where_it_lies_and_stays_at_its_generation(run, root):
    mixture = open_mixture([f"{root}/demos"])
    metadata = mixture.datasets[0]
    assert str(metadata.folder) == f"{root}/demos"
    reader, here = EpisodeReader(metadata), EpisodeReader(read_metadata(run / "demos"))
    for each in (reader, pickle.loads(pickle.dumps(reader))):
        assert str(each.place(1)).startswith(f"{root}/demos/steps/")
        np.testing.assert_array_equal(each.images(1, [0, 3]), here.images(1, [0, 3]))
    make_dataset(run / "demos", episodes=4)
    publisher(run, root).publish()
    assert len(read_metadata(f"{root}/demos").episodes) == 4
    assert len(metadata.episodes) == 2
    np.testing.assert_array_equal(EpisodeReader(metadata).images(0, [2]), here.images(0, [2]))


def test_an_unfinished_published_data_set_says_so(tmp_path, run, root):
    (run / "demos/dataset.json").unlink()
    publisher(run, root).publish()
    with pytest.raises(InputError, match=r"is an unfinished collection: repeat jobs/collect_demos.py --output file://"):
        read_metadata(f"{root}/demos")
