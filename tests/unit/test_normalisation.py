import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avavla_ray.errors import InputError
from avavla_ray.normalisation import FILE_NAME, FieldStatistics, Statistics


def statistics(seed=0):
    rng = np.random.default_rng(seed)
    action = FieldStatistics.of(rng.normal(size=(500, 7)), mask=[True] * 6 + [False])
    return Statistics("libero_object", action, FieldStatistics.of(rng.normal(size=(500, 8))), episodes=5, steps=500)


@given(arrays(np.float32, (4, 7), elements=st.floats(-1, 1, width=32)))
def test_round_trip_inside_the_range(normalised):
    field = statistics().action
    np.testing.assert_allclose(field.normalise(field.unnormalise(normalised)), normalised, atol=1e-5)


def test_quantiles_become_plus_and_minus_one_and_the_rest_is_clipped():
    field = statistics().action
    np.testing.assert_allclose(field.normalise(field.q99)[:6], 1.0, atol=1e-6)
    np.testing.assert_allclose(field.normalise(field.q01)[:6], -1.0, atol=1e-6)
    assert field.normalise(field.maximum + 5)[:6].max() == 1.0


def test_the_gripper_passes_unchanged():
    assert statistics().action.normalise(np.full(7, -1.0))[6] == -1.0


def test_a_constant_dimension_is_zero_and_comes_back():
    field = FieldStatistics.of(np.full((10, 2), 3.0))
    assert field.normalise(np.array([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert field.unnormalise(np.zeros(2)).tolist() == [3.0, 3.0]


def test_file_round_trip(tmp_path):
    statistics().save(tmp_path)
    loaded = Statistics.load(tmp_path)
    assert (loaded.name, loaded.episodes, loaded.steps) == ("libero_object", 5, 500)
    np.testing.assert_array_equal(loaded.action.q01, statistics().action.q01)
    assert loaded.action.mask.tolist() == [True] * 6 + [False]


def test_the_file_has_openvlas_names_and_what_is_unknown_is_left_out(tmp_path):
    before = statistics()
    unknown = dataclasses.replace(before.action, mean=np.full(7, np.nan))
    dataclasses.replace(before, action=unknown).save(tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text())["libero_object"]
    assert list(content) == ["action", "proprio", "num_transitions", "num_trajectories"]
    assert list(content["proprio"]) == ["q01", "q99", "mean", "std", "min", "max", "mask"]
    assert list(content["action"]) == ["q01", "q99", "std", "min", "max", "mask"]
    loaded = Statistics.load(tmp_path)
    assert np.isnan(loaded.action.mean).all()
    np.testing.assert_array_equal(loaded.proprio.mean, before.proprio.mean)


@pytest.mark.parametrize("content", ["{", "{}", '{"a": {"action": {}}}', "[]"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(InputError, match=FILE_NAME):
        Statistics.load(tmp_path)


def test_a_missing_file_and_two_data_sets_are_named(tmp_path):
    with pytest.raises(InputError, match="missing"):
        Statistics.load(tmp_path)
    statistics().save(tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps({**content, "other": content["libero_object"]}))
    with pytest.raises(InputError, match="holds 2 data sets"):
        Statistics.load(tmp_path)
