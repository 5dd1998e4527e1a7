"""What is below a run's output and other machines read meanwhile; what cloning's processes tell each other."""

from __future__ import annotations

import pickle
import time

import pytest

from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.storage import names
from avavla_ray.storage.arguments import mirrored
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from avavla_ray.storage.sharing import shared
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints, StoredCheckpoint
from avavla_ray.training.shared_output import SharedOutput
from tests.support.checkpoint_writer import assert_whole, write
from tests.support.demonstration_data import make_dataset
from tests.support.snapshots import Killed, Killer


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Call it to be on another machine."""
    monkeypatch.setattr(names, "_addresses", {})
    monkeypatch.setattr(names, "_output", [])

    def on(name):
        monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / name))

    on("driver")
    return on


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/store/run"


def test_a_folder_of_a_run_is_read_by_others_while_the_run_goes_on(uri, tmp_path):
    with mirrored(uri) as output:
        make_dataset(output / "cloning/demos", episodes=2)
        address = shared(output / "cloning/demos")
        assert address == f"{uri}/cloning/demos"
        assert len(read_metadata(address).episodes) == 2
        make_dataset(output / "cloning/demos", episodes=3)
        assert len(read_metadata(shared(output / "cloning/demos")).episodes) == 3
        (output / "summary.json").write_text("{}")
    assert set(read_manifest(Place.of(uri)).files) == {"summary.json"}
    # On another machine it is in the store only.
    assert len(read_metadata(address).episodes) == 3


def test_a_folder_of_a_local_run_is_itself(tmp_path):
    assert shared(tmp_path / "demos") == str(tmp_path / "demos")
    assert SharedOutput.of(tmp_path) is None


@pytest.fixture
def store(uri):
    with mirrored(uri) as output:
        found = SharedOutput.of(output)
        assert found is not None
        assert found.folder == output
        found.begin(output, "launch 1")
        (output / "settings.json").write_text("{}")
    return pickle.loads(pickle.dumps(found))


def checkpoints(store):
    return RunCheckpoints(store.folder / CHECKPOINTS)


def test_what_rank_0_writes_on_one_machine_others_take_and_the_driver_gathers(store, machine, tmp_path):
    driver = store.folder
    machine("first")
    with store.publishing() as saved:
        for step in (1, 2, 3):
            write(checkpoints(store), step)
            saved()
    newest = checkpoints(store).newest()
    assert store.take(newest) == newest  # on this machine
    machine("second")
    taken = store.take(newest)
    assert taken.path.is_relative_to(tmp_path / "second")
    assert_whole(taken)
    assert [found.step for found in checkpoints(store)._all()] == [3]
    machine("driver")
    store.gather(driver)
    assert [found.step for found in checkpoints(store)._all()] == [3, 2]
    assert set(read_manifest(store.store).files) == {"settings.json"}


def test_a_successor_on_another_machine_goes_on_from_what_was_published(store, machine):
    machine("first")
    with store.publishing():
        write(checkpoints(store), 1)
    with pytest.raises(Killed), Killer(1), store.publishing():
        raise AssertionError("nothing can be brought")
    write(checkpoints(store), 2)  # and the machine is lost
    machine("second")
    with store.publishing() as saved:
        newest = checkpoints(store).newest(verify=True)
        assert newest.step == 1
        assert_whole(newest)
        write(checkpoints(store), 2)
        write(checkpoints(store), 3)
        saved()
    # The first machine comes back: what it never published is not gone on with.
    machine("first")
    with store.publishing():
        assert [found.step for found in checkpoints(store)._all()] == [3, 2]


def test_a_successor_on_the_same_machine_takes_up_what_was_not_published(store, machine):
    machine("first")
    with store.publishing():
        write(checkpoints(store), 1)
    write(checkpoints(store), 2)
    with store.publishing():
        assert checkpoints(store).newest(verify=True).step == 2
        machine("second")
        assert_whole(store.take(checkpoints_of(store, "step-000000002")))


def checkpoints_of(store, name):
    """What rank 0 tells the others: a path of its own machine."""
    return StoredCheckpoint(store.folder.parent / "elsewhere" / name, 2, None, {"position": {"step": 2}}, 0)


def test_a_rank_0_that_was_replaced_ends(store, machine, tmp_path):
    machine("first")
    with pytest.raises(RuntimeError, match="another process publishes to"), store.publishing() as saved:
        write(checkpoints(store), 1)
        machine("second")
        with store.publishing():
            write(checkpoints(store), 1)
        machine("first")
        write(RunCheckpoints(tmp_path / "first/outputs" / store.folder.parent.name / "run" / CHECKPOINTS), 2)
        for _ in range(1000):
            saved()
            time.sleep(0.01)


def test_launches_and_refusals_are_told_apart(store):
    assert store.launched() == "launch 1"
    assert store.refusal("launch 1") is None
    store.refuse("launch 1", "a picture is broken")
    assert store.refusal("launch 1") == "a picture is broken"
    assert store.refusal("launch 2") is None
