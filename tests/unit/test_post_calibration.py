"""Fitted maps against what the scores were distorted by, and against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from avavla_ray.errors import InputError
from avavla_ray.evaluation.reliability import reliability
from avavla_ray.learning.post_calibration import fit_gate_maps, fit_isotonic, fit_temperature
from avavla_ray.policy.gate_map import check_gate_maps
from avavla_ray.policy.reasoning import LogitMap


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(float)))


def drawn(distort, shape=(4000, 4), seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of true logits, and what a gate says instead: distort(true)."""
    random = np.random.default_rng(seed)
    true = random.normal(0.5, 1.5, shape)
    labels = (random.random(shape) < sigmoid(true)).astype(np.float32)
    return distort(true).astype(np.float32), labels


def apply(maps, logits: np.ndarray) -> np.ndarray:
    return LogitMap(maps[0])(torch.from_numpy(logits)).numpy()


def ece(logits: np.ndarray, labels: np.ndarray) -> float:
    return reliability(sigmoid(logits).ravel(), labels.ravel(), 0.5).ece


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_temperature_is_found_and_is_the_best_one(temperature):
    logits, labels = drawn(lambda true: true * temperature)
    (found,) = fit_gate_maps("temperature", logits, labels)
    assert 1 / found.slope == pytest.approx(temperature, rel=0.06)

    def loss(slope: float) -> float:
        scores = sigmoid(logits * slope)
        return float(-np.log(np.where(labels > 0.5, scores, 1 - scores)).mean())

    assert all(loss(found.slope) <= loss(found.slope * factor) + 1e-9 for factor in (0.8, 0.98, 1.02, 1.3))


def test_each_step_has_its_own_temperature():
    wanted = np.array([0.5, 1.0, 2.0, 4.0])
    logits, labels = drawn(lambda true: true * wanted)
    maps = fit_gate_maps("temperature_by_step", logits, labels)
    np.testing.assert_allclose([1 / each.slope for each in maps], wanted, rtol=0.15)
    check_gate_maps(maps, max_steps=5)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_maps_calibrate_decisions_that_they_were_not_fitted_on(method):
    def overconfident(true):
        return 3 * true

    maps = fit_gate_maps(method, *drawn(overconfident))
    logits, labels = drawn(overconfident, seed=1)
    assert ece(logits, labels) > 0.1
    assert ece(apply(maps, logits), labels) < 0.02


def test_isotonic_straightens_what_no_temperature_can():
    def bent(true):
        return np.where(true > 0, 0.2 * true, 3 * true) - 1.0

    fitted, (logits, labels) = drawn(bent), drawn(bent, seed=1)
    errors = {method: ece(apply(fit_gate_maps(method, *fitted), logits), labels) for method in
              ("temperature", "isotonic")}  # fmt: skip
    assert errors["isotonic"] < 0.03 < 0.1 < errors["temperature"]


@given(st.lists(st.tuples(st.floats(-8, 8, width=32), st.booleans()), min_size=2, max_size=80))
def test_isotonic_maps_are_ones_that_a_gate_can_apply_through_the_means_of_the_blocks(pairs):
    logits = np.array([logit for logit, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs], np.float32)
    if labels.min() == labels.max():
        with pytest.raises(InputError, match="labels of the validation episodes say"):
            fit_isotonic(logits, labels)
        return
    found = fit_isotonic(logits, labels)
    check_gate_maps((found,), max_steps=5)
    levels = IsotonicRegression().fit_transform(logits.astype(float), labels.astype(float))
    least = 0.5 / len(labels)
    means = {float(np.float32(logits[levels == level].astype(float).mean())): level for level in np.unique(levels)}
    for logit, calibrated in zip(found.logits, found.calibrated, strict=True):
        assert sigmoid(np.array(calibrated)) == pytest.approx(np.clip(means[logit], least, 1 - least), abs=1e-5)


def test_labels_that_are_all_the_same_are_refused():
    ones = np.ones((20, 4), np.float32)
    with pytest.raises(InputError, match=r"all 80 labels of the validation episodes say exit.*--post none"):
        fit_gate_maps("temperature", ones, ones)
    mixed = ones.copy()
    mixed[::2, 1:] = 0
    fit_gate_maps("temperature", ones, mixed)
    with pytest.raises(InputError, match="all 20 labels of the validation episodes after latent step 1 say exit"):
        fit_gate_maps("temperature_by_step", ones, mixed)
    with pytest.raises(InputError, match="say stay"):
        fit_temperature(ones[0], 0 * ones[0])
    with pytest.raises(InputError, match="did you mean 'isotonic'"):
        fit_gate_maps("isotonik", ones, mixed)
