"""The walk over demonstrations: complete, in order, reproducible, independent of workers and interruptions."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.schedule import DecisionSchedule, decision_steps
from avavla_ray.demonstrations.windows import WindowSettings, WindowWalk, augment, held_out_batches, prefetch
from avavla_ray.errors import InputError
from tests.support.demonstration_data import make_dataset, make_episode

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def encode(text: str) -> np.ndarray:
    return np.array([len(word) for word in text.split()][:4])


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> EpisodeReader:
    return EpisodeReader(read_metadata(make_dataset(tmp_path_factory.mktemp("windows") / "demos", episodes=5)))


@given(lengths=LENGTHS, streams=st.integers(1, 5), stride=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_stream_walks_whole_episodes_in_order(lengths, streams, stride, seed):
    schedule = DecisionSchedule(lengths, streams, stride, seed)
    walks = list(zip(*(schedule.advance() for _ in range(80)), strict=True))
    for walk in walks:
        assert walk[0].start
        for before, after in itertools.pairwise(walk):
            if after.start:
                assert after.step == 0
                assert before.step + stride >= lengths[before.episode], "an episode was left before its end"
            else:
                assert after.episode == before.episode
                gap = after.step - before.step
                assert 1 <= gap <= stride
                assert gap == stride or before.step == 0, "only the first stride may be short"


def test_streams_do_not_walk_in_step():
    schedule = DecisionSchedule([100] * 30, 32, 8, 0)
    for _ in range(60):
        visits = schedule.advance()
    places = [visit.step // 25 for visit in visits]
    assert all(places.count(quarter) >= 2 for quarter in range(4)), "a batch must hold all parts of the task"


@given(length=st.integers(1, 40), stride=st.integers(1, 9))
def test_all_phases_together_visit_every_step(length, stride):
    visited = {step for phase in range(1, stride + 1) for step in decision_steps(length, stride, phase)}
    assert visited == set(range(length))


@given(lengths=LENGTHS, streams=st.integers(1, 4), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_pass_hands_out_every_episode_once(lengths, streams, seed):
    schedule = DecisionSchedule(lengths, streams, 8, seed)
    drawn = [schedule.steps_of(draw)[0] for draw in range(3 * len(lengths))]
    for turn in range(3):
        assert sorted(drawn[turn * len(lengths) : (turn + 1) * len(lengths)]) == list(range(len(lengths)))


@given(lengths=LENGTHS, cut=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_restored_schedule_goes_on_where_it_stopped(lengths, cut):
    schedule = DecisionSchedule(lengths, 3, 4, 1)
    for _ in range(cut):
        schedule.advance()
    resumed = DecisionSchedule(lengths, 3, 4, 1)
    resumed.restore(schedule.state())
    assert [schedule.advance() for _ in range(20)] == [resumed.advance() for _ in range(20)]


def test_batches_hold_what_the_episode_holds(reader):
    walk = WindowWalk(reader, encode, WindowSettings(streams=2, decisions=3, chunk=8, shift=0))
    batch = walk.next()
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "images": ((2, 3, 2, 32, 32, 3), "uint8"),
        "text": ((2, 3, 4), "int64"),
        "proprio": ((2, 3, 8), "float32"),
        "actions": ((2, 3, 8, 7), "float32"),
        "mask": ((2, 3, 8), "bool"),
        "starts": ((2, 3), "bool"),
    }
    schedule = DecisionSchedule([e.steps for e in reader.metadata.episodes], 2, 8, 0)
    statistics = reader.metadata.statistics
    for turn in range(3):
        for stream, visit in enumerate(schedule.advance()):
            proprio, actions = reader.numbers(visit.episode)
            np.testing.assert_array_equal(batch["images"][stream, turn], reader.images(visit.episode, [visit.step])[0])
            np.testing.assert_allclose(
                batch["proprio"][stream, turn], statistics.proprio.normalise(proprio[visit.step])
            )
            coming = statistics.action.normalise(actions[visit.step : visit.step + 8])
            np.testing.assert_allclose(batch["actions"][stream, turn, : len(coming)], coming)
            mask = [True] * len(coming) + [False] * (8 - len(coming))
            assert batch["mask"][stream, turn].tolist() == mask
            assert batch["starts"][stream, turn] == visit.start
            assert visit.start or turn > 0


@pytest.mark.parametrize("world", [2, 4])
def test_the_order_does_not_depend_on_the_number_of_workers(reader, world):
    chosen = WindowSettings(streams=4, decisions=2, shift=3, brightness=0.1, seed=5)
    whole = WindowWalk(reader, encode, chosen)
    parts = [WindowWalk(reader, encode, chosen, rank=rank, world=world) for rank in range(world)]
    for _ in range(6):
        expected, found = whole.next(), [part.next() for part in parts]
        for name, array in expected.items():
            for stream in range(4):
                np.testing.assert_array_equal(array[stream], found[stream % world][name][stream // world])


def test_prefetching_and_resuming_give_the_same_batches(reader):
    chosen = WindowSettings(streams=2, shift=2, seed=3)
    plain = WindowWalk(reader, encode, chosen)
    expected = [plain.next() for _ in range(12)]
    ahead = prefetch(WindowWalk(reader, encode, chosen))
    for index in range(5):
        batch, state = next(ahead)
        np.testing.assert_array_equal(batch["images"], expected[index]["images"])
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    resumed = WindowWalk(reader, encode, chosen)
    resumed.restore(state)
    for index in range(5, 12):
        batch = resumed.next()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, expected[index][name])


def test_prefetching_hands_errors_on(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=2)
    reader = EpisodeReader(read_metadata(folder))
    for path in (folder / "steps").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="is missing"):
        next(prefetch(WindowWalk(reader, encode, WindowSettings(streams=1))))


def test_held_out_batches_cover_each_decision_once(reader):
    lengths = [e.steps for e in reader.metadata.episodes]
    chosen = [0, 3, 4]
    seen, starts = 0, 0
    for batch in held_out_batches(reader, encode, chosen, chunk=8, streams=2):
        seen += int(batch["mask"].sum())
        starts += int(batch["starts"].sum())
    assert seen == sum(lengths[index] for index in chosen)
    assert starts == len(chosen)


def test_augmentation_moves_all_cameras_alike_and_stays_in_range():
    images = np.zeros((2, 2, 16, 16, 3), np.uint8)
    images[..., 8, 8, :] = 200
    moved = augment(images, 4, 0.0, np.random.default_rng(2))
    places = {tuple(np.argwhere(picture[..., 0])[0]) for picture in moved.reshape(-1, 16, 16, 3)}
    assert len(places) == 1
    assert places != {(8, 8)}
    assert max(abs(value - 8) for place in places for value in place) <= 4
    brighter = augment(np.full((8, 8, 3), 250, np.uint8), 0, 0.5, np.random.default_rng(0))
    assert brighter.dtype == np.uint8
    assert len(np.unique(brighter)) == 1
    assert augment(images, 0, 0.0, np.random.default_rng(0)) is images


def test_streams_must_divide_among_workers(reader):
    with pytest.raises(InputError, match="3 streams do not divide among 2 workers"):
        WindowWalk(reader, encode, WindowSettings(streams=3), rank=0, world=2)


def test_a_walk_can_be_held_to_some_episodes(reader):
    walk = WindowWalk(reader, encode, WindowSettings(streams=1, shift=0), episodes=[2])
    own = reader.metadata.statistics.proprio.normalise(make_episode(2, 22).proprio)
    for _ in range(8):
        assert np.isclose(walk.next()["proprio"][0, 0], own).all(1).any()
