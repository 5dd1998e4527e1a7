"""Demonstrations beside PPO: which episodes it learns from, and going on in the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from actors.cloning_stream import CloningStream, Demonstrations, never_learned
from actors.settings import PPOSettings
from avavla_ray.demonstrations.reader import DatasetMetadata, EpisodeReader, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.demonstration_data import make_dataset
from tests.support.policies import tiny

STREAMS = 4


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> DatasetMetadata:
    return read_metadata(make_dataset(tmp_path_factory.mktemp("beside") / "demos", episodes=6))


def stream_over(metadata: DatasetMetadata, held_out: dict[str, list[str]], **changes) -> CloningStream:
    settings = PPOSettings(demonstration_streams=STREAMS)
    place = {"rank": 0, "world": 1, "seed": 3, **changes}
    return CloningStream(
        Demonstrations(str(metadata.folder), held_out), AvaVlaPolicy(tiny()), metadata.statistics, settings, **place
    )


def names(metadata: DatasetMetadata, *episodes: int) -> list[str]:
    return [metadata.episodes[index].episode for index in episodes]


def learned_from(streams: list[CloningStream], metadata: DatasetMetadata, windows: int) -> set[int]:
    """Indices of the episodes that windows come from, known by their proprioception, which no two have in common."""
    reader = EpisodeReader(metadata)
    known = [metadata.statistics.proprio.normalise(reader.numbers(index)[0])[0, 1:] for index in range(6)]
    found = set()
    for stream in streams:
        for _ in range(windows):
            for seen in stream.next(1.0).window["proprio"][..., 1:].reshape(-1, 7).numpy():
                (index,) = [index for index, each in enumerate(known) if np.allclose(each, seen, atol=1e-5)]
                found.add(index)
    return found


def test_episodes_that_are_held_out_are_not_learned_from(metadata):
    assert learned_from([stream_over(metadata, {})], metadata, windows=12) == set(range(6))
    held_out = {metadata.name: names(metadata, 1, 4), "other": names(metadata, 0)}
    ranks = [stream_over(metadata, held_out, rank=rank, world=2) for rank in range(2)]
    assert learned_from(ranks, metadata, windows=12) == {0, 2, 3, 5}
    with pytest.raises(InputError, match="all 6 episodes are held out of training"):
        stream_over(metadata, {metadata.name: names(metadata, *range(6))})


def test_a_stream_goes_on_where_it_was_and_over_the_same_episodes_only(metadata):
    held_out = {metadata.name: names(metadata, 2)}
    stream, again = stream_over(metadata, held_out), stream_over(metadata, held_out)
    for _ in range(3):
        stream.next(1.0)
    state = stream.state()
    again.restore(state)
    for _ in range(4):
        mine, other = stream.next(1.0), again.next(1.0)
        assert mine.latent_steps == other.latent_steps
        for key, values in mine.window.items():
            torch.testing.assert_close(values, other.window[key], rtol=0, atol=0)
    for changed in ({}, {metadata.name: names(metadata, 3)}):
        with pytest.raises(InputError, match=f"{metadata.folder}: the episodes, .* are not what the run began with"):
            stream_over(metadata, changed).restore(state)


def test_what_a_run_never_learns_from_is_carried_on(metadata, tmp_path: Path):
    folder, held_out = str(metadata.folder), {"other": ["a", "b"]}
    assert never_learned({}, None) == {}
    assert never_learned({"held_out": held_out}, None) == held_out
    assert never_learned({"held_out": held_out}, folder) == {**held_out, metadata.name: []}
    named = {metadata.name: names(metadata, 0)}
    assert never_learned({"held_out": named}, folder) == named
    with pytest.raises(InputError, match="no demonstrations at"):
        never_learned({}, str(tmp_path / "nothing"))
