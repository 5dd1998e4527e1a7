"""Places of data sets: every scheme ends in a file system or in one line that says what is wrong."""

from __future__ import annotations

import os
import pickle
import socket
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.storage.place import Place
from tests.support.demonstration_data import make_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("place") / "demos", episodes=2)


def test_a_place_reads_what_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"hello")
    place = Place.of(tmp_path) / "a"
    assert Place.of(place) is place
    assert (place.is_folder(), place.is_file(), place.local) == (True, False, True)
    file = place / "b.txt"
    assert (file.is_folder(), file.is_file(), str(file)) == (False, True, str(tmp_path / "a" / "b.txt"))
    assert file.read_bytes() == b"hello"
    with file.open() as stream:
        stream.seek(3)
        assert stream.read() == b"lo"
    assert not (place / "c").is_file()
    with pytest.raises(FileNotFoundError):
        (place / "c").open()
    with pytest.raises(InputError, match="a cannot be read"):
        place.read_bytes()


def test_a_relative_path_means_the_same_in_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    place = Place.of("demos")
    sent = pickle.dumps(place)
    monkeypatch.chdir(tmp_path)
    for each in (place, pickle.loads(sent)):
        assert str(each / "steps") == "demos/steps"
        assert (each / "steps").is_folder()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_data_set_behind_a_scheme_is_the_one_on_the_disk(scheme, folder):
    where = f"file://{folder}"
    if scheme == "memory":
        fsspec = pytest.importorskip("fsspec")
        where = "memory://robots/demos"
        fsspec.filesystem("memory").put(str(folder), "/robots/demos", recursive=True)
    there, here = EpisodeReader(read_metadata(where)), EpisodeReader(read_metadata(folder))
    assert there.metadata.episodes == here.metadata.episodes
    np.testing.assert_array_equal(there.load(1, [3, 20]), here.load(1, [3, 20]))
    assert str(there.place(1)) == f"{where}/steps/{here.metadata.episodes[1].episode}.parquet"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nosuch://host/demos", "nosuch://host/demos: unknown scheme nosuch: give a local path, s3://"),
        ("s3:///demos", "^s3:///demos names no bucket: give s3://BUCKET/FOLDER$"),
        ("s3://", "^s3:// names no bucket: give s3://BUCKET/FOLDER$"),
        ("s3://id:pass@/demos", "^s3:///demos names no bucket"),
        ("gs://", "^gs:// names no bucket: give gs://BUCKET/FOLDER$"),
        ("gs:///demos", "^gs:///demos names no bucket"),
        ("file://", "^file:// names no folder: give file:///FOLDER$"),
        ("hdfs://", "^hdfs:// names no folder: give hdfs://HOST/FOLDER$"),
        ("memory:///", "^memory:/// names no folder: give memory://HOST/FOLDER$"),
        ("", "^'' names no place: give a folder or a URI$"),
        ("s3://robots/demos?region=x&endpoint=host:1", "'endpoint': did you mean 'endpoint_override'"),
        ("gs://robots/demos?what=1", "no address that can be read"),
        ("s3://[robots/demos", "a s3:// address is malformed"),
    ],
)
def test_an_address_that_means_nothing_is_refused(where, message):
    with pytest.raises(InputError, match=message) as raised:
        Place.of(where)
    assert "\n" not in str(raised.value)


def test_a_library_that_is_missing_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("ARROW_LIBHDFS_DIR", "/nowhere")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(InputError, match=r"hdfs://host:8020/demos: the scheme hdfs cannot be used here") as raised:
        Place.of("hdfs://host:8020/demos")
    assert "\n" not in str(raised.value)


def test_googles_store_that_is_not_there_is_given_up_soon():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        where = f"gs://anonymous@robots/demos?scheme=http&endpoint_override=127.0.0.1:{port}&retry_limit_seconds=1"
        start = time.monotonic()
        with pytest.raises(InputError, match="the store does not answer .Could not connect to server.: check its"):
            read_metadata(where)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("s3://id:pass@robots/demos?region=x", "s3://robots/demos?region=x"),
        ("abfs://box:a2V5@account.dfs.core.windows.net/demos", "abfs://box@account.dfs.core.windows.net/demos"),
    ],
)
def test_secrets_are_not_shown(where, shown):
    place = Place.of(where)
    assert str(place) == shown
    assert shown in repr(place)
    path, mark, query = shown.partition("?")
    assert str(place / "steps" / "a.parquet") == f"{path}/steps/a.parquet{mark}{query}"


def test_secrets_of_a_wrong_address_are_not_shown_either():
    with pytest.raises(InputError, match="no address that can be read") as raised:
        Place.of("hdfs://me:hush@host:port/demos")
    assert "hush" not in str(raised.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text("{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="dataset.json may not be read by this user: make it readable"):
        read_metadata(tmp_path)


def test_loading_touches_only_the_row_groups_that_hold_the_steps(tmp_path):
    metadata = read_metadata(make_dataset(tmp_path / "demos", episodes=1))
    whole = EpisodeReader(metadata)
    path = tmp_path / "demos" / "steps" / f"{metadata.episodes[0].episode}.parquet"
    expected = {step: whole.load(0, [step]) for step in (0, 7, 19)}
    with pq.ParquetFile(path) as file:
        images = [column for column in range(file.metadata.num_columns) if "images" in file.schema.column(column).path]
        chunk = file.metadata.row_group(1).column(images[0])
        assert file.num_row_groups == 3
    damaged = bytearray(path.read_bytes())
    damaged[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    path.write_bytes(damaged)
    reader = EpisodeReader(metadata)
    frames = reader.load(0, [19, 0, 7, 0])
    np.testing.assert_array_equal(frames, np.concatenate([expected[step] for step in (19, 0, 7, 0)]))
    path.unlink()
    # What came along is not read again.
    assert reader.numbers(0)[1].shape == (20, 7)
    with pytest.raises(InputError, match="is missing"):
        reader.load(0, [0])


def test_a_step_that_is_not_there_is_named(folder):
    reader = EpisodeReader(read_metadata(folder))
    for load in (reader.load, reader.images):
        with pytest.raises(InputError, match="parquet has no step 20"):
            load(0, [1, 20])
        with pytest.raises(InputError, match="parquet has no step -1"):
            load(0, [-1])
