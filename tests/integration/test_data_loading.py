"""Demonstrations through Ray Data: the same batches as in the process, errors, lost processes, a full cluster."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import ray.data

from avavla_ray.demonstrations.augmentation import OPENVLA
from avavla_ray.demonstrations.decisions import DrawLoader
from avavla_ray.demonstrations.mixture import Mixture, open_mixture
from avavla_ray.demonstrations.windows import Batch, WindowSettings, WindowWalk
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.errors import InputError
from avavla_ray.training.loading import RayDataSource
from tests.support.demonstration_data import make_dataset, make_episode
from tests.support.loaders import CountedLoader, KilledLoader, StuckLoader, walk_in_worker, word_lengths

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SETTINGS = WindowSettings(streams=3, decisions=2, augmentation=OPENVLA, proprio_noise=0.1, seed=2)
SHORT = {"cpus": 1.0, "draws_per_task": 2, "tasks_per_leg": 3}  # legs that end within a test


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Mixture:
    place = tmp_path_factory.mktemp("loading")
    first, second = make_dataset(place / "a", 4, 18, name="a"), make_dataset(place / "b", 3, 30, name="b", seed=7)
    return open_mixture([f"{first}=2", f"{second}=1"])


def test_in_a_worker_batches_are_those_of_the_process_also_after_an_interruption(mixture):
    walk = ray.remote(num_cpus=1)(walk_in_worker)
    given = (mixture, SETTINGS, SHORT)
    whole = WindowWalk(mixture, word_lengths, SETTINGS)
    expected = [whole.next() for _ in range(12)]
    batches, state, left = ray.get(walk.remote(*given, None, 0, 1, 8))
    assert not left
    for found, batch in zip(batches, expected, strict=False):
        assert_equal(found, batch)
    assert sum(state["handed"]) > 2 * 6, "the walk must have gone through more than two legs"
    parts = [ray.get(walk.remote(*given, state, rank, 2, 4)) for rank in range(2)]
    for index, batch in enumerate(expected[8:]):
        for name in batch.keys() - {"counts"}:
            for stream in range(3):
                found = parts[stream % 2][0][index][name][stream // 2]
                np.testing.assert_array_equal(found, batch[name][stream], err_msg=name)
        np.testing.assert_array_equal(parts[0][0][index]["counts"], batch["counts"])


def test_a_broken_picture_reaches_the_caller_as_it_would_without_ray(tmp_path):
    writer, names = DatasetWriter(tmp_path / "demos"), []
    for attempt in range(6):
        episode = make_episode(attempt, 20)
        if attempt == 4:
            episode.images[:] = [[b"no picture", b"no picture"]] * 20
        writer.write(episode)
        names.append(episode.info.episode)
    writer.finish("demos", names, {"suite": "libero_object", "image_size": 32, "provenance": {}})
    mixture = open_mixture([tmp_path / "demos"])

    def until_it_breaks(source) -> InputError:
        walk = WindowWalk(mixture, word_lengths, SETTINGS, source=source)
        with pytest.raises(InputError, match="bytes that are no picture") as caught:
            for _ in range(100):
                walk.next()
        walk.close()
        return caught.value

    plain = until_it_breaks(None)
    assert str(until_it_breaks(RayDataSource(DrawLoader(mixture, SETTINGS), **SHORT))) == str(plain)


def test_a_killed_task_is_repeated(mixture, tmp_path):
    loader = KilledLoader(mixture, SETTINGS)
    loader.victim, loader.grave = 5, tmp_path / "killed"
    plain = WindowWalk(mixture, word_lengths, SETTINGS)
    walk = WindowWalk(mixture, word_lengths, SETTINGS, source=RayDataSource(loader, **SHORT))
    for _ in range(8):
        assert_equal(walk.next(), plain.next())
    walk.close()
    assert loader.grave.exists(), "no task was killed"


def test_a_draw_that_is_larger_than_rays_blocks_stays_whole(mixture, monkeypatch):
    monkeypatch.setattr(ray.data.DataContext.get_current(), "target_max_block_size", 10_000)
    plain = WindowWalk(mixture, word_lengths, SETTINGS)
    walk = WindowWalk(mixture, word_lengths, SETTINGS, source=RayDataSource(DrawLoader(mixture, SETTINGS), **SHORT))
    for _ in range(3):
        assert_equal(walk.next(), plain.next())
    walk.close()


def test_what_waits_in_memory_is_bounded_and_is_all_there(mixture, tmp_path):
    """A leg is cut to fit, and nothing of it is held back: Ray Data would poll without a pause meanwhile."""
    settings = WindowSettings(streams=1)
    loader = CountedLoader(mixture, settings)
    loader.folder = tmp_path
    walk = WindowWalk(mixture, word_lengths, settings)
    requests = list(itertools.islice(walk._schedule.requests(walk.mine), 400))
    decisions = RayDataSource(loader, draws_per_task=4, tasks_per_leg=100, megabytes=1)(iter(requests))
    for _ in range(3):  # the first leg is a task of four; in its middle the next one starts
        next(decisions)
    before = -1
    while before < (before := len(list(tmp_path.iterdir()))):
        time.sleep(1.0)
    decisions.close()
    sizes = np.cumsum([2 * 32 * 32 * 3 * loader.count(request) for request in requests[4:]])
    assert before == 4 + 1 + np.searchsorted(sizes, 2**20)
    assert 4 + 4 < before < 400


def test_loading_claims_no_cpu_of_a_cluster_that_trains_on_all(mixture):
    @ray.remote
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    assert ray.get(holder.ready.remote())
    walk = WindowWalk(mixture, word_lengths, SETTINGS, source=RayDataSource(DrawLoader(mixture, SETTINGS), **SHORT))
    try:
        assert_equal(walk.next(), WindowWalk(mixture, word_lengths, SETTINGS).next())
    finally:
        walk.close()
        ray.kill(holder)


def test_loading_that_is_stuck_is_given_up(mixture):
    source = RayDataSource(StuckLoader(mixture, SETTINGS), cpus=1.0, patience=1.0)
    walk = WindowWalk(mixture, word_lengths, SETTINGS, source=source)
    with pytest.raises(InputError, match=r"no demonstration from .*/a in 1 s: look whether its store answers"):
        walk.next()
    walk.close()


def test_sizes_that_make_no_sense_are_refused(mixture):
    with pytest.raises(InputError, match="0 CPUs and 256 MB"):
        RayDataSource(DrawLoader(mixture, SETTINGS), cpus=0)


def test_the_module_imports_no_torch():
    code = "import sys, avavla_ray.training.loading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
