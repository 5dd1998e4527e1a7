"""Batches of consecutive decisions: what they hold, whoever loads them, on however many workers, interrupted or not."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.demonstrations.augmentation import OPENVLA, Augmentation
from avavla_ray.demonstrations.decisions import DrawLoader
from avavla_ray.demonstrations.mixture import Mixture, open_mixture
from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.schedule import DecisionSchedule
from avavla_ray.demonstrations.windows import Batch, WindowSettings, WindowWalk, held_out_batches, prefetch
from avavla_ray.errors import InputError
from tests.support.demonstration_data import make_dataset, make_episode

CHANGED = Augmentation(shift=0.1, crop=0.8, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1)
MIXED = WindowSettings(streams=5, decisions=2, augmentation=CHANGED, proprio_noise=0.1, seed=5)


def encode(text: str) -> np.ndarray:
    return np.array([len(word) for word in text.split()][:4])


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Mixture:
    return open_mixture([make_dataset(tmp_path_factory.mktemp("windows") / "demos", episodes=5)])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Mixture:
    place = tmp_path_factory.mktemp("mixed")
    first, second = make_dataset(place / "a", 4, 18, name="a"), make_dataset(place / "b", 3, 30, name="b", seed=7)
    return open_mixture([f"{first}=2", f"{second}=1"])


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def joined(parts: list[Batch], streams: int) -> Batch:
    """The workers' batches as one worker would have made them."""
    world = len(parts)
    batch = {
        name: np.stack([parts[stream % world][name][stream // world] for stream in range(streams)])
        for name in parts[0].keys() - {"counts"}
    }
    for part in parts:
        np.testing.assert_array_equal(part["counts"], parts[0]["counts"])
    return batch | {"counts": parts[0]["counts"]}


def test_batches_hold_what_the_episode_holds(alone):
    batch = WindowWalk(alone, encode, WindowSettings(streams=2, decisions=3, chunk=8)).next()
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "images": ((2, 3, 2, 32, 32, 3), "uint8"),
        "text": ((2, 3, 4), "int64"),
        "proprio": ((2, 3, 8), "float32"),
        "actions": ((2, 3, 8, 7), "float32"),
        "mask": ((2, 3, 8), "bool"),
        "starts": ((2, 3), "bool"),
        "counts": ((3,), "int64"),
    }
    metadata = alone.datasets[0]
    reader, statistics = EpisodeReader(metadata), metadata.statistics
    schedule = DecisionSchedule([[e.steps for e in metadata.episodes]], 2, 8, 0)
    for turn in range(3):
        for stream, visit in enumerate(schedule.advance()):
            episode = visit.draw.episode
            proprio, actions = reader.numbers(episode)
            np.testing.assert_array_equal(batch["images"][stream, turn], reader.images(episode, [visit.step])[0])
            np.testing.assert_allclose(
                batch["proprio"][stream, turn], statistics.proprio.normalise(proprio[visit.step])
            )
            coming = statistics.action.normalise(actions[visit.step : visit.step + 8])
            np.testing.assert_allclose(batch["actions"][stream, turn, : len(coming)], coming)
            mask = [True] * len(coming) + [False] * (8 - len(coming))
            assert batch["mask"][stream, turn].tolist() == mask
            assert batch["starts"][stream, turn] == visit.start
            assert visit.start or turn > 0
    np.testing.assert_array_equal(batch["counts"], batch["mask"].sum((0, 2)))


def test_every_data_set_is_normalised_by_its_own_statistics(mixed):
    walk = WindowWalk(mixed, encode, WindowSettings(streams=4, decisions=8))
    whole = walk.next()
    found = whole["proprio"][..., 1].reshape(-1)  # constant along an episode, so each value names one
    known = []
    for dataset, seed, steps in zip(mixed.datasets, (0, 7), (18, 30), strict=True):
        episodes = [make_episode(attempt, steps + attempt % 3, seed=seed) for attempt in range(len(dataset.episodes))]
        known.append([dataset.statistics.proprio.normalise(episode.proprio[0])[1] for episode in episodes])
    assert all(np.isclose(value, known[0] + known[1]).any() for value in found)
    assert all(np.isclose(found, own).any() for each in known for own in each)


@given(cuts=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=2))
@settings(max_examples=5, deadline=None)
def test_any_interruption_at_any_number_of_workers_changes_nothing(mixed, cuts):
    undisturbed = WindowWalk(mixed, encode, MIXED)
    state = undisturbed.state()
    for batches, world in [*cuts, (2, 2), (1, 1), (2, 4)]:
        walks = [WindowWalk(mixed, encode, MIXED, rank=rank, world=world) for rank in range(world)]
        assert sorted(stream for walk in walks for stream in walk.mine) == list(range(MIXED.streams))
        for walk in walks:
            walk.restore(json.loads(json.dumps(state)))
        for _ in range(batches):
            assert_equal(joined([walk.next() for walk in walks], MIXED.streams), undisturbed.next())
        assert all(walk.state() == undisturbed.state() for walk in walks)
        state = walks[-1].state()


def test_whole_draws_loaded_elsewhere_give_the_same_batches(mixed):
    loader = pickle.loads(pickle.dumps(DrawLoader(mixed, MIXED)))
    plain = WindowWalk(mixed, encode, MIXED, rank=1, world=2)
    elsewhere = WindowWalk(mixed, encode, MIXED, rank=1, world=2, source=lambda requests: map(loader, requests))
    for _ in range(12):
        assert_equal(elsewhere.next(), plain.next())
    elsewhere.close()
    assert_equal(elsewhere.next(), plain.next())


def test_a_source_out_of_order_is_noticed(mixed):
    loader, wrong = DrawLoader(mixed, MIXED), []

    def source(requests):
        for request in requests:
            wrong.append(request)
            yield loader(wrong[0])

    walk = WindowWalk(mixed, encode, MIXED, source=source)
    with pytest.raises(RuntimeError, match="the source loaded .* the walk needs"):
        walk.next()


def test_loading_needs_no_torch(mixed, tmp_path):
    path = tmp_path / "work.pickle"
    walk = WindowWalk(mixed, encode, MIXED)
    path.write_bytes(pickle.dumps((DrawLoader(mixed, MIXED), next(walk._schedule.requests(walk.mine)))))
    code = (
        "import pickle, sys; loader, request = pickle.load(open(sys.argv[1], 'rb')); loader(request);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[2])


def test_pictures_change_with_the_draw_and_are_repeated_exactly(alone):
    def images(chosen: WindowSettings) -> np.ndarray:
        return WindowWalk(alone, encode, chosen).next()["images"]

    changed = WindowSettings(streams=3, decisions=2, augmentation=OPENVLA, seed=1)
    np.testing.assert_array_equal(images(changed), images(changed))
    plain = images(WindowSettings(streams=3, decisions=2, seed=1))
    assert plain.shape == images(changed).shape
    assert all((a != b).any() for a, b in zip(plain, images(changed), strict=True))


def test_noise_on_proprioception_has_the_asked_size(alone):
    plain, noisy = (
        np.concatenate([walk.next()["proprio"] for _ in range(20)])
        for walk in (WindowWalk(alone, encode, WindowSettings(streams=5, proprio_noise=noise)) for noise in (0.0, 0.3))
    )
    difference = noisy - plain
    assert len(np.unique(difference)) > 0.9 * difference.size
    assert difference.std() == pytest.approx(0.3, rel=0.1)
    assert noisy.dtype == np.float32


def test_prefetching_and_resuming_give_the_same_batches(alone):
    chosen = WindowSettings(streams=2, augmentation=Augmentation(shift=0.1), seed=3)
    plain = WindowWalk(alone, encode, chosen)
    expected = [plain.next() for _ in range(12)]
    ahead = prefetch(WindowWalk(alone, encode, chosen))
    for index in range(5):
        batch, state = next(ahead)
        assert_equal(batch, expected[index])
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    resumed = WindowWalk(alone, encode, chosen)
    resumed.restore(state)
    for index in range(5, 12):
        assert_equal(resumed.next(), expected[index])


def test_prefetching_hands_errors_on(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=2)
    mixture = open_mixture([folder])
    for path in (folder / "steps").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="is missing"):
        next(prefetch(WindowWalk(mixture, encode, WindowSettings(streams=1))))


def test_held_out_batches_cover_each_decision_once(alone):
    reader = EpisodeReader(alone.datasets[0])
    lengths = [e.steps for e in reader.metadata.episodes]
    chosen = [0, 3, 4]
    seen, starts = 0, 0
    for batch in held_out_batches(reader, encode, chosen, chunk=8, streams=2):
        seen += int(batch["mask"].sum())
        starts += int(batch["starts"].sum())
    assert seen == sum(lengths[index] for index in chosen)
    assert starts == len(chosen)


def test_more_workers_than_streams_are_refused(alone):
    with pytest.raises(InputError, match="1 streams are too few for 2 workers"):
        WindowWalk(alone, encode, WindowSettings(streams=1), rank=0, world=2)


def test_pictures_of_several_sizes_are_refused(alone, tmp_path):
    large = make_dataset(tmp_path / "large", 2, size=40, name="large")
    mixture = open_mixture([alone.datasets[0].folder, large])
    with pytest.raises(InputError, match="pictures of several sizes .*demos 32, .*large 40 pixels"):
        DrawLoader(mixture, WindowSettings())


def test_a_walk_can_be_held_to_some_episodes(alone):
    walk = WindowWalk(alone, encode, WindowSettings(streams=1), episodes=[[2]])
    own = alone.statistics["libero_object"].proprio.normalise(make_episode(2, 22).proprio)
    for _ in range(8):
        assert np.isclose(walk.next()["proprio"][0, 0], own).all(1).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"decisions": 0}, "0 decisions a window"), ({"proprio_noise": -0.1}, "proprio noise -0.1")],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        WindowSettings(**changes)
