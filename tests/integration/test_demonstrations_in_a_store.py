"""Demonstrations in an S3 store: read as they are from a disk, and what is wrong with the store said in one line."""

from __future__ import annotations

import pickle
import socket
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.storage import stores
from avavla_ray.storage.place import Place
from tests.support.demonstration_data import make_dataset
from tests.support.unreliable_store import KEYS, use_keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("store") / "demos", episodes=3)


@pytest.fixture(scope="module")
def store(folder):
    """HOST:PORT of a server that holds `folder` in the bucket robots under data/demos."""
    boto3, server_module = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", endpoint_url=f"http://{address}", region_name="us-east-1",
        aws_access_key_id="anyone", aws_secret_access_key="hushhush",
    )  # fmt: skip
    client.create_bucket(Bucket="robots")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "robots", f"data/demos/{path.relative_to(folder).as_posix()}")
    yield address
    server.stop()


@pytest.fixture(autouse=True)
def keys(monkeypatch, tmp_path):
    use_keys(monkeypatch, tmp_path)


def address(store: str, path: str = "robots/data/demos") -> str:
    return f"s3://{path}?endpoint_override={store}&scheme=http"


def test_a_data_set_in_a_store_is_the_one_on_the_disk(store, folder):
    there, here = (EpisodeReader(read_metadata(where)) for where in (address(store), folder))
    assert there.metadata.episodes == here.metadata.episodes
    assert there.metadata.manifest == here.metadata.manifest
    assert str(there.metadata.folder) == address(store)
    np.testing.assert_array_equal(there.metadata.statistics.action.q99, here.metadata.statistics.action.q99)
    # A worker's copy opens its own connection.
    for reader in (there, pickle.loads(pickle.dumps(there))):
        for ours, theirs in zip(here.numbers(2), reader.numbers(2), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for steps in ([21, 0, 9], range(22)):
            np.testing.assert_array_equal(reader.load(2, steps), here.load(2, steps))
            np.testing.assert_array_equal(reader.images(2, steps), here.images(2, steps))


def test_the_stores_address_may_come_from_the_environment(store, folder, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store}")
    metadata = read_metadata("s3://robots/data/demos")
    assert metadata.episodes == read_metadata(folder).episodes
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with_scheme = read_metadata(f"s3://robots/data/demos?endpoint_override=http://{store}")
    assert with_scheme.episodes == metadata.episodes


def test_keys_in_an_address_are_used_and_never_shown(store, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    place = Place.of(address(store).replace("s3://", "s3://anyone:hush%2Fhush@"))
    for shown in (str(place), repr(place), str(place / "steps"), str(pickle.loads(pickle.dumps(place)))):
        assert "hush" not in shown
        assert "anyone" not in shown
    assert (place / "steps").is_folder()
    assert place._root.startswith("s3://anyone:")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("robts/data/demos", "there is no bucket 'robts': correct its name"),
        ("robots/data/demo", "no demonstrations at s3://robots/data/demo?.* --output s3://robots/data/demo"),
        ("robots/data", "s3://robots/data.* holds none"),
    ],
)
def test_a_wrong_path_is_named(store, path, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as raised:
        read_metadata(address(store, path))
    assert "\n" not in str(raised.value)


def test_a_store_that_lost_a_file_names_it(store, folder):
    boto3 = pytest.importorskip("boto3")
    metadata = read_metadata(address(store))
    key = f"data/demos/steps/{metadata.episodes[0].episode}.parquet"
    client = boto3.client("s3", endpoint_url=f"http://{store}", region_name="us-east-1")
    kept = client.get_object(Bucket="robots", Key=key)["Body"].read()
    client.delete_object(Bucket="robots", Key=key)
    with pytest.raises(InputError, match=f"s3://robots/{key}.* is missing: the data set is incomplete"):
        EpisodeReader(metadata).load(0, [0])
    client.put_object(Bucket="robots", Key=key, Body=kept[: len(kept) // 2])
    with pytest.raises(InputError, match="no readable Parquet file"):
        EpisodeReader(metadata).load(0, [0])
    client.put_object(Bucket="robots", Key=key, Body=kept)
    assert EpisodeReader(metadata).load(0, [0]).shape == (1, 2, 32, 32, 3)


def refused(where: str) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(InputError) as raised:
        read_metadata(where)
    assert "\n" not in str(raised.value)
    return str(raised.value), time.monotonic() - start


ASKED_FOR_KEYS = "the store refuses access: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it"


def test_keys_that_the_store_does_not_know_are_refused(store):
    def check_keys(after: str) -> None:
        """Let the server check keys after so many calls."""
        request = urllib.request.Request(
            f"http://{store}/moto-api/reset-auth", after.encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).read()

    check_keys("0")
    try:
        message, seconds = refused(address(store))
    finally:
        check_keys("inf")
    assert ASKED_FOR_KEYS in message
    assert seconds < 20


class _Locked(BaseHTTPRequestHandler):
    """What S3 answers to a request that nobody signed. (moto fails on one.)"""

    def do_HEAD(self) -> None:
        self.send_response(200 if "Authorization" in self.headers else 403)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_without_keys_they_are_asked_for(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        message, seconds = refused(address(f"127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert ASKED_FOR_KEYS in message
    assert seconds < 20


def test_a_host_that_is_not_there_is_given_up_soon():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        message, seconds = refused(address(f"127.0.0.1:{unused.getsockname()[1]}"))
    assert "the store does not answer (Could not connect to server): check its address and the network" in message
    assert seconds < 20


def test_a_host_that_never_answers_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    monkeypatch.setattr(stores, "ANSWER_SECONDS", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        message, seconds = refused(address(f"127.0.0.1:{silent.getsockname()[1]}"))
    assert "the store does not answer (Timeout was reached)" in message
    assert seconds < 20


def test_a_store_that_comes_back_is_waited_for(store, folder, monkeypatch, capsys):
    from moto.server import ThreadedMotoServer

    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    first = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)  # with the same buckets
    first.start()
    host, port = first.get_host_and_port()
    metadata = read_metadata(address(f"{host}:{port}"))
    first.stop()
    reader, impatient = EpisodeReader(metadata), EpisodeReader(metadata, patience=0)
    with pytest.raises(stores.StoreUnreachable, match="the store does not answer"):
        impatient.load(0, [3])
    again, waits = ThreadedMotoServer(ip_address=host, port=port, verbose=False), []

    def come_back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            again.start()

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=come_back)
    monkeypatch.setattr("avavla_ray.demonstrations.reader.time", clock)
    try:
        found = reader.load(0, [3])
    finally:
        again.stop()
    np.testing.assert_array_equal(found, EpisodeReader(read_metadata(folder)).load(0, [3]))
    assert waits == [1.0, 2.0]
    assert capsys.readouterr().out.count("the store does not answer") == 2
