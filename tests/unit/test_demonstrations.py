"""Demonstration data sets: what is written comes back, what is foreign is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.schema import decode_image, encode_image
from avavla_ray.demonstrations.writer import DatasetWriter, statistics_of
from avavla_ray.errors import InputError
from tests.support.demonstration_data import INSTRUCTION, make_dataset, make_episode


def test_episodes_come_back_as_they_were_written(tmp_path):
    metadata = read_metadata(make_dataset(tmp_path / "demos", episodes=4))
    assert [e.attempt for e in metadata.episodes] == [0, 1, 2, 3]
    assert metadata.steps == metadata.statistics.steps == 20 + 21 + 22 + 20
    reader, original = EpisodeReader(metadata), make_episode(2, 22)
    proprio, actions = reader.numbers(2)
    np.testing.assert_array_equal(proprio, original.proprio)
    np.testing.assert_array_equal(actions, original.actions)
    frames = reader.images(2, [21, 0, 8])
    assert frames.shape == (3, 2, 32, 32, 3)
    assert frames.dtype == np.uint8
    for frame, step in zip(frames, (21, 0, 8), strict=True):
        np.testing.assert_array_equal(frame[1], decode_image(original.images[step][1]))
    assert metadata.episodes[2] == original.info
    assert metadata.episodes[0].instruction == INSTRUCTION


def test_a_full_cache_changes_nothing(tmp_path):
    metadata = read_metadata(make_dataset(tmp_path / "demos", episodes=2))
    cached, uncached = EpisodeReader(metadata), EpisodeReader(metadata, cache_megabytes=0)
    for _ in range(2):
        np.testing.assert_array_equal(cached.images(1, [3, 17]), uncached.images(1, [3, 17]))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        make_dataset(tmp_path / name, episodes=2)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_an_episode_of_another_width_is_named(tmp_path):
    writer, wide = DatasetWriter(tmp_path), make_episode(1)
    wide = replace(wide, actions=np.concatenate([wide.actions, wide.actions[:, :1]], axis=1))
    for episode in (make_episode(0), wide):
        writer.write(episode)
    with pytest.raises(InputError, match="synthetic-00-00001.parquet: actions of 8 numbers, others 7: leave it out"):
        writer.finish("x", ["synthetic-00-00000", "synthetic-00-00001"], {"suite": "x"})


def test_statistics_leave_the_gripper_alone():
    random = np.random.default_rng(0)
    actions = [random.uniform(-0.5, 0.5, (200, 7)) for _ in range(3)]
    for part in actions:
        part[:, 6] = np.sign(part[:, 6])
    statistics = statistics_of("x", actions, [random.normal(size=(200, 8)) for _ in range(3)])
    assert statistics.action.mask.tolist() == [True] * 6 + [False]
    together = np.concatenate(actions)
    np.testing.assert_allclose(statistics.action.q99, np.quantile(together, 0.99, axis=0))
    np.testing.assert_array_equal(statistics.action.normalise(together)[:, 6], together[:, 6].astype(np.float32))
    assert (statistics.episodes, statistics.steps) == (3, 600)


def test_parquet_of_another_schema_is_refused(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=2)
    metadata = read_metadata(folder)
    path = folder / "steps" / f"{metadata.episodes[0].episode}.parquet"
    pq.write_table(pa.table({"episode": ["a"], "pixels": [1]}), path)
    with pytest.raises(InputError, match="no column 'suite'"):
        EpisodeReader(metadata).numbers(0)
    table = pq.read_table(folder / "steps" / f"{metadata.episodes[1].episode}.parquet")
    other = table.set_column(table.column_names.index("action"), "action", pa.array(["left"] * len(table)))
    pq.write_table(other, path)
    with pytest.raises(InputError, match="column 'action' holds string"):
        EpisodeReader(metadata).images(0, [0])


def test_a_truncated_parquet_file_is_refused(tmp_path):
    folder = make_dataset(tmp_path / "demos", episodes=2)
    metadata = read_metadata(folder)
    path = folder / "steps" / f"{metadata.episodes[1].episode}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="no readable Parquet file"):
        EpisodeReader(metadata).images(1, [0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), "unfinished collection"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "no manifest of demonstrations"),
        (lambda folder: (folder / "dataset.json").write_text(json.dumps({"format": 99, "name": "x"})), "has format 99"),
        (lambda folder: (folder / "episodes.parquet").unlink(), "episodes.parquet is missing"),
        (lambda folder: (folder / "dataset_statistics.json").unlink(), "dataset_statistics.json is missing"),
    ],
)
def test_a_damaged_data_set_names_what_is_wrong(tmp_path, damage, message):
    folder = make_dataset(tmp_path / "demos", episodes=1)
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_metadata(folder)


def test_no_data_set_at_all(tmp_path):
    with pytest.raises(InputError, match=r"jobs/collect_demos\.py"):
        read_metadata(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds none"):
        read_metadata(tmp_path)


def test_the_writer_refuses_numbers_that_are_not_finite(tmp_path):
    episode = make_episode(0)
    broken = replace(episode, actions=np.where(np.arange(7) == 3, np.nan, episode.actions))
    with pytest.raises(InputError, match="not finite"):
        DatasetWriter(tmp_path).write(broken)
    with pytest.raises(InputError, match="differ in length"):
        DatasetWriter(tmp_path).write(replace(episode, images=episode.images[:-1]))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("place", [10, 14, 20, 40, 90])
def test_a_damaged_picture_is_refused_wherever_the_damage_lies(place):
    good = encode_image(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    assert decode_image(good).shape == (16, 16, 3)
    with pytest.raises(InputError, match="a demonstration holds"):
        decode_image(good[:place] + bytes([good[place] ^ 0x51]) + good[place + 1 :])
    with pytest.raises(InputError, match="a demonstration holds"):
        decode_image(good[:place])
