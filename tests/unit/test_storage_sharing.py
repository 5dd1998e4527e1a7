"""What is below a run's output and other machines read meanwhile; what cloning's processes tell each other."""

from __future__ import annotations

import pickle
import shutil
import time
from pathlib import Path

import pytest

from actors import ppo_job
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.storage import names
from avavla_ray.storage.arguments import mirrored
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from avavla_ray.storage.sharing import here, holds_keys, portable, shared
from avavla_ray.training.output import CHECKPOINTS
from avavla_ray.training.run_checkpoints import RunCheckpoints, StoredCheckpoint
from avavla_ray.training.shared_output import SharedOutput
from tests.support.checkpoint_writer import assert_whole, content, write
from tests.support.demonstration_data import make_dataset
from tests.support.snapshots import Killed, Killer, fill, held, publisher


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


def test_addresses_with_keys_are_told_from_others(tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    monkeypatch.setattr(names, "_addresses", {str(copy): ("s3://lab/run", "s3://key:secret@lab/run")})
    assert holds_keys(copy / "checkpoint")
    assert holds_keys("s3://lab/demos?secret_key=abc")
    for plain in (
        "s3://lab/demos?region=eu", "s3://lab/demos?endpoint_override=minio%3A9000&scheme=http", "S3://lab/demos",
        "abfs://container@account.dfs/x", "runs/demos", tmp_path,
    ):  # fmt: skip
        assert not holds_keys(plain)


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


def test_what_was_shared_from_a_lost_machine_is_there_again_before_more_is_collected(
    uri, machine, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "jobs"))
    import collect_demos

    with mirrored(uri) as output:
        make_dataset(output / "cloning/demos", episodes=2)
        shared(output / "cloning/demos")
    found = []

    def collect(settings):
        found.append(len(read_metadata(settings.output).episodes))
        raise Killed  # what would come next is another test's

    machine("second")
    monkeypatch.setattr(collect_demos, "main", collect)
    with pytest.raises(Killed), mirrored(uri) as output:
        fill(output, {"settings.json": b"{}"})
        ppo_job.clone_first(ppo_job.Settings(output=output), "sqlite:///x.db", calvin=False)
    assert found == [2]
    # And the run's own snapshot still leaves it out.
    assert set(read_manifest(Place.of(uri)).files) == {"settings.json"}


def test_other_machines_read_what_was_given_by_its_address(uri, machine, tmp_path):
    assert here(portable(tmp_path / "bc")) == tmp_path / "bc"
    make_dataset(tmp_path / "run/demos", episodes=2)
    publisher(tmp_path / "run", Place.of(uri)).publish()
    given = portable(local_copy(f"{uri}/demos") / "steps")
    shutil.rmtree(tmp_path / "driver")
    machine("second")
    assert given == f"{uri}/demos/steps"
    assert held(here(given)) == held(tmp_path / "run/demos/steps")
    assert here(given).is_relative_to(tmp_path / "second")


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


def test_another_checkpoint_of_the_same_name_is_not_taken_for_the_chosen_one(store, machine):
    machine("second")  # wrote it before it was lost, never to be published
    own = write(checkpoints(store), 3).path
    (own / "engine.bin").write_bytes(content(4, "engine.bin"))
    (own / "policy/more.bin").write_bytes(b"")
    machine("first")
    with store.publishing():
        chosen = write(checkpoints(store), 3)
    machine("second")
    taken = store.take(chosen)
    assert taken.path == own
    assert_whole(taken)
    assert not (own / "policy/more.bin").exists()
    with pytest.raises(RuntimeError, match="does not keep step-000000009, which rank 0 goes on from"):
        store.take(chosen._replace(path=own.with_name("step-000000009")))


def test_a_driver_whose_machine_had_rank_0_once_keeps_the_checkpoints_apart(store, machine):
    driver = store.folder
    with store.publishing():
        write(checkpoints(store), 1)
    write(checkpoints(store), 2)  # and rank 0 is lost
    machine("second")
    with store.publishing():
        write(checkpoints(store), 3)
    machine("driver")
    store.gather(driver)
    assert checkpoints(store).newest().step == 3
    with mirrored(str(store.store)) as output:
        assert output == driver
        (output / "summary.json").write_text("{}")
    assert set(read_manifest(store.store).files) == {"settings.json", "summary.json"}


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
