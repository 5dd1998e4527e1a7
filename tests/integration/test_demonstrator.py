"""Collecting with Ray actors that break, die and hang: each costs its attempt only, and the data stay the same."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from actors.watchdog import NoTaskLeft
from avavla_ray.demonstrations.collection import KEPT, LOST, Attempt, Collection
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.simulators.experts.expert import NoExpert
from tests.support.demonstration_data import make_episode
from tests.support.unreliable_recorder import (
    BreaksAtTask,
    CannotDoTasks,
    DiesBeforeItsFirstEpisode,
    HangsBesideOthers,
    UnreliableRecorder,
)

pytestmark = pytest.mark.ray


def collect_into(folder: Path, trouble: Path | None, num_actors: int, wanted: int = 6) -> Collection:
    from actors.demonstrator import collect

    collection, writer = Collection(folder, {"seed": 0}, [0, 1], wanted), DatasetWriter(folder)
    seen = []
    collect(
        collection, writer, partial(UnreliableRecorder, trouble), suite="libero_object", seed=0,
        num_actors=num_actors, finished=lambda attempt, outcome: seen.append((attempt, outcome)), timeout_s=4.0,
    )  # fmt: skip
    assert sorted(seen) == sorted(collection.outcomes.items())
    names = [attempt.name("libero_object") for task in (0, 1) for attempt in collection.kept(task)]
    writer.finish("libero_object", names, {"provenance": collection.provenance})
    return collection


@pytest.mark.timeout(120)
def test_trouble_costs_an_attempt_and_no_more(ray_cluster, tmp_path, capfd):
    (tmp_path / "trouble").mkdir()
    collection = collect_into(tmp_path / "troubled", tmp_path / "trouble", num_actors=2)
    for task in (0, 1):
        assert [attempt.number for attempt in collection.kept(task)] == [0, 1, 2, 3, 6, 7]
        assert collection.outcomes[Attempt(task, 4)] == LOST
    output = capfd.readouterr().out
    assert "task 0, attempt 3 hangs" in output
    assert "task 1, attempt 4: SimulatorFailure: physics diverged; given up after 3 tries" in output
    metadata = read_metadata(tmp_path / "troubled")
    assert len(metadata.episodes) == 12
    np.testing.assert_array_equal(EpisodeReader(metadata).numbers(0)[1], make_episode(0, 6).actions)


def test_a_task_that_always_breaks_is_quarantined_and_the_other_is_collected(ray_cluster, tmp_path, capfd):
    from actors.demonstrator import collect

    def collect_all(collection: Collection) -> None:
        collect(
            collection, DatasetWriter(tmp_path), partial(BreaksAtTask, 1), suite="libero_object", seed=0, num_actors=2,
            finished=lambda *_: None,
        )  # fmt: skip

    collection = Collection(tmp_path, {"seed": 0}, [0, 1], 3)
    collect_all(collection)
    assert list(collection.quarantined) == [1]
    assert "task 1 is quarantined" in capfd.readouterr().out
    assert (len(collection.kept(0)), len(collection.kept(1))) == (3, 0)
    assert collection.done
    again = Collection(tmp_path, {"seed": 0}, [1], 3)
    assert not again.done
    with pytest.raises(NoTaskLeft, match="no task is left"):
        collect_all(again)


@pytest.mark.parametrize(("cannot", "all_tasks", "message"), [
    ((1,), False, None), ((1,), True, "task 1: no scripted expert for the microwave; leave it out with --tasks"),
    ((0, 1), False, "none of the 2 tasks can be demonstrated; the last: no scripted expert"),
])  # fmt: skip
def test_a_task_without_an_expert_is_left_out_unless_it_was_asked_for(
    ray_cluster, tmp_path, capfd, cannot, all_tasks, message
):
    from actors.demonstrator import collect

    collection = Collection(tmp_path, {"seed": 0}, [0, 1], 3)
    arguments = {"suite": "libero_object", "seed": 0, "num_actors": 2, "finished": lambda *_: None}
    expectation = pytest.raises(NoExpert, match=message) if message else nullcontext()
    with expectation:
        collect(collection, DatasetWriter(tmp_path), partial(CannotDoTasks, *cannot), **arguments, all_tasks=all_tasks)
    if message is None:
        assert collection.without_expert == {1: "no scripted expert for the microwave"}
        assert capfd.readouterr().out.count("task 1 is left out: no scripted expert for the microwave") == 1
        assert collection.outcomes == {Attempt(0, number): KEPT for number in range(3)}
        assert collection.done


def test_a_death_before_the_first_episode_is_survived(ray_cluster, tmp_path, capfd):
    from actors.demonstrator import collect

    collection = Collection(tmp_path / "demos", {"seed": 0}, [0], 1)
    collect(
        collection, DatasetWriter(tmp_path / "demos"), partial(DiesBeforeItsFirstEpisode, tmp_path),
        suite="libero_object", seed=0, num_actors=1, finished=lambda *_: None,
    )  # fmt: skip
    assert collection.provenance == {"simulator": "synthetic"}
    assert collection.outcomes == {Attempt(0, 0): KEPT}
    assert "starting the simulator: ActorDiedError" in capfd.readouterr().out


def test_a_hang_is_seen_while_others_end_their_attempts(ray_cluster, tmp_path, capfd):
    from actors.demonstrator import collect

    collection, printed = Collection(tmp_path / "demos", {"seed": 0}, [0, 1], 12), []
    collect(
        collection, DatasetWriter(tmp_path / "demos"), partial(HangsBesideOthers, tmp_path), suite="libero_object",
        seed=0, num_actors=2, finished=lambda *_: printed.append(capfd.readouterr().out), timeout_s=2.0,
    )  # fmt: skip
    assert "task 0, attempt 0 hangs" in "".join(printed[:11])


def test_the_data_do_not_depend_on_the_number_of_actors(ray_cluster, tmp_path):
    for actors in (1, 3):
        collect_into(tmp_path / str(actors), None, num_actors=actors, wanted=5)
    files = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*") if p.is_file())
    assert len(files) == 10 + 4
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes(), file


def test_a_repeated_collection_makes_only_what_is_missing(ray_cluster, tmp_path):
    first = collect_into(tmp_path, None, num_actors=2, wanted=2)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").iterdir()}
    again = Collection(tmp_path, {"seed": 0}, [0, 1], 2)
    assert again.done
    assert again.outcomes == first.outcomes == dict.fromkeys(first.outcomes, KEPT)
    from actors.demonstrator import collect

    more = Collection(tmp_path, {"seed": 0}, [0, 1], 3)
    collect(
        more, DatasetWriter(tmp_path), partial(UnreliableRecorder, None), suite="libero_object", seed=0,
        num_actors=1, finished=lambda *_: None,
    )  # fmt: skip
    assert {a.number for a in more.kept(0)} == {0, 1, 2}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
