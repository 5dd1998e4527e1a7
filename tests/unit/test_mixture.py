"""Several data sets as one: how they are named, weighted, refused and split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.demonstrations.mixture import Mixture, open_mixture, split
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.errors import InputError
from tests.support.demonstration_data import make_dataset, make_episode


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("mixture")
    return make_dataset(place / "first", 5, name="first"), make_dataset(place / "second", 30, 6, name="second", seed=9)


def test_a_mixture_keeps_order_names_and_statistics(folders):
    mixture = open_mixture(folders)
    assert [dataset.name for dataset in mixture.datasets] == ["first", "second"]
    assert mixture.weights is None
    assert mixture.statistics["second"].steps == mixture.datasets[1].steps
    assert not np.array_equal(mixture.statistics["first"].action.q01, mixture.statistics["second"].action.q01)


def test_weights_stand_behind_the_places(folders):
    first, second = folders
    assert open_mixture([f"{first}=2.5", f"{second}=1"]).weights == (2.5, 1.0)
    with pytest.raises(InputError, match=f"{second} has no weight, others have"):
        open_mixture([f"{first}=2.5", str(second)])
    for wrong in ("0", "-1", "nan", "inf"):
        with pytest.raises(InputError, match=f"weight {wrong} is not above 0"):
            open_mixture([f"{first}={wrong}"])


def test_an_equals_sign_may_belong_to_the_place(folders, tmp_path):
    folder = tmp_path / "rate=0.5"
    shutil.copytree(folders[0], folder)
    assert open_mixture([str(folder)]).weights is None
    assert open_mixture([f"{folder}=3"]).weights == (3.0,)
    # An option of a URI is none; what comes behind the last option is.
    for source in ("s3://no-such-bucket/demos?connect_timeout=5", "nowhere://demos=x"):
        with pytest.raises(InputError) as caught:
            open_mixture([source, f"{folders[1]}=2"])
        assert f"{source} has no weight" in str(caught.value)
    with pytest.raises(InputError, match="weight 0 is not above 0.*learn from s3://bucket/demos.scheme=http$"):
        open_mixture(["s3://bucket/demos?scheme=http=0"])


def test_a_name_that_ends_in_a_number_can_be_written_in_two_ways(folders):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(folders[0]), "/robots/task=3", recursive=True)
    message = "no demonstrations at memory://robots/task: .*=3 was read as a weight.*, write memory://robots/task=3/.$"
    with pytest.raises(InputError, match=message):
        open_mixture(["memory://robots/task=3"])
    slash, weighted = open_mixture(["memory://robots/task=3/"]), open_mixture(["memory://robots/task=3=1"])
    assert (slash.weights, weighted.weights) == (None, (1.0,))
    assert slash.datasets[0].episodes == weighted.datasets[0].episodes == open_mixture(folders[:1]).datasets[0].episodes
    with pytest.raises(InputError) as caught:
        open_mixture([f"{folders[0].parent}/task=3"])
    assert f"no demonstrations at {folders[0].parent}/task:" in str(caught.value)
    with pytest.raises(InputError, match="/task=3/: collect") as caught:
        open_mixture([f"{folders[0].parent}/task=3/"])
    assert "weight" not in str(caught.value)


def test_keys_in_an_address_are_not_shown_with_its_weight(folders):
    secret = "s3://anyone:hush@robots/demos?region=x"
    for sources in ([secret, f"{folders[0]}=2"], [f"{secret}=0"]):
        with pytest.raises(InputError, match="weight") as caught:
            open_mixture(sources)
        assert "hush" not in str(caught.value)


def test_data_sets_of_one_name_are_refused(folders, tmp_path):
    twin = make_dataset(tmp_path / "twin", 2, name="first")
    with pytest.raises(InputError, match=f"{folders[0]} and {twin} are both named 'first'"):
        open_mixture([folders[0], twin])
    with pytest.raises(InputError, match="give at least one data set"):
        open_mixture([])


def test_data_sets_of_another_width_are_refused(folders, tmp_path):
    known = make_episode(0, 6)
    writer = DatasetWriter(tmp_path / "wide")
    info = EpisodeInfo("wide-0", "libero_object", 0, 0, 0, 6, 0, known.info.instruction)
    writer.write(Episode(info, known.images, np.zeros((6, 9), np.float32), known.actions))
    writer.finish("wide", ["wide-0"], {"suite": "libero_object", "image_size": 32, "provenance": {}})
    with pytest.raises(InputError, match="wide has proprio of 9 numbers, .*first of 8"):
        open_mixture([folders[0], tmp_path / "wide"])


def test_the_split_is_disjoint_reproducible_and_of_each_data_set(folders):
    mixture = open_mixture(folders)
    training, held_out = split(mixture, 0.2, 4, seed=1)
    assert [len(each) for each in held_out] == [1, 4]
    for mine, theirs, dataset in zip(training, held_out, mixture.datasets, strict=True):
        assert sorted(mine + theirs) == list(range(len(dataset.episodes)))
    assert split(mixture, 0.2, 4, seed=1) == (training, held_out)
    assert split(mixture, 0.2, 4, seed=2)[1][1] != held_out[1]
    alone = Mixture(mixture.datasets[:1])
    assert split(alone, 0.2, 4, seed=1) == (training[:1], held_out[:1])


def test_small_data_sets_hold_out_one_episode_and_tiny_ones_none(folders):
    five, few = open_mixture(folders[:1]), open_mixture([make_dataset(folders[0].parent / "few", 4, name="few")])
    assert [len(each) for each in split(five, 0.05, 16, seed=1)[1]] == [1]
    assert split(five, 0.0, 16, seed=1)[1] == split(five, 0.5, 0, seed=1)[1] == [[]]
    assert split(few, 0.5, 16, seed=1) == ([[0, 1, 2, 3]], [[]])
    with pytest.raises(InputError, match=f"{folders[0]}: all 5 episodes are held out .* or hold out fewer"):
        split(five, 1.0, 16, seed=1)


def names_of(mixture: Mixture, chosen: list[list[int]]) -> dict[str, list[str]]:
    return {
        data.name: [data.episodes[index].episode for index in each]
        for data, each in zip(mixture.datasets, chosen, strict=True)
    }


def test_what_was_held_out_before_stays_so_whatever_the_seed(folders):
    mixture, alone = open_mixture(folders), open_mixture(folders[1:])
    before = names_of(alone, split(alone, 0.2, 4, seed=0)[1])
    training, held_out = split(mixture, 0.5, 16, 1, before)
    assert held_out[1] != split(mixture, 0.2, 4, seed=1)[1][1]
    assert names_of(mixture, held_out)["second"] == before["second"]
    for mine, theirs, dataset in zip(training, held_out, mixture.datasets, strict=True):
        assert sorted(mine + theirs) == list(range(len(dataset.episodes)))
    # Of a data set that the policy has not learned from, a share is held out as ever.
    assert held_out[0] == split(mixture, 0.5, 16, seed=1)[1][0]
    # Even when nothing is to be held out.
    assert split(mixture, 0.0, 0, 1, before)[1] == [[], held_out[1]]


def test_what_was_learned_from_is_never_held_out(folders):
    mixture = open_mixture(folders)
    there = mixture.datasets[1].episodes[7].episode
    assert split(mixture, 0.5, 16, 0, {"second": [there, "gone"], "other": ["x"]})[1][1] == [7]
    # Learned from whole, or by now without the episodes that were held out.
    for names in ([], ["gone"]):
        assert split(mixture, 0.5, 16, 0, {"second": names})[1][1] == []
    everything = names_of(mixture, [[], list(range(30))])
    with pytest.raises(InputError, match=f"{folders[1]}: all 30 episodes are held out of training"):
        split(mixture, 0.5, 16, 0, everything)
