"""Reliability by hand, and against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.evaluation.calibration_report import markdown, report_gate, report_role
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.reliability import by_step, reliability


def test_bins_by_hand():
    scores = np.array([0.0, 0.05, 0.1, 0.15, 0.62, 0.68, 0.7, 1.0])
    labels = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    found = reliability(scores, labels, threshold=0.65)
    assert [(each.low, each.count) for each in found.bins] == [
        (0.0, 3), (pytest.approx(0.1), 1), (pytest.approx(0.6), 3), (pytest.approx(0.9), 1)
    ]  # fmt: skip
    first = found.bins[0]
    assert (first.score, first.share) == (pytest.approx(0.05), pytest.approx(1 / 3))
    assert first.interval == wilson(1, 3)
    gaps = 3 * abs(0.05 - 1 / 3) + abs(0.15 - 1) + 3 * abs(2 / 3 - 2 / 3) + 0
    assert found.ece == pytest.approx(gaps / 8)
    assert found.brier == pytest.approx(np.mean((scores - labels) ** 2))
    assert found.nll == pytest.approx(-np.log([1, 0.05, 0.9, 0.15, 0.62, 0.32, 0.7, 1]).mean())
    assert found.label_rate == 5 / 8
    assert found.mean_score == pytest.approx(scores.mean())
    assert found.accuracy == 4 / 8  # right: 0.0, 0.1, 0.7 and 1.0


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60), st.integers(1, 12))
def test_every_score_is_in_one_bin_that_holds_it(pairs, bins):
    scores = np.array([score for score, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs], np.float32)
    found = reliability(scores, labels, 0.5, bins)
    assert sum(each.count for each in found.bins) == found.count == len(pairs)
    ones = sum(each.count * each.share for each in found.bins)
    assert ones == pytest.approx(labels.sum())
    for each in found.bins:
        assert each.low - 1e-6 <= each.score <= each.high + 1e-6
        assert each.interval[0] <= each.share <= each.interval[1]
    assert 0 <= found.ece <= 1
    assert found.ece >= abs(found.mean_score - found.label_rate) - 1e-9  # what all bins together are off by
    assert np.isfinite(found.nll)


def test_a_gate_that_knows_its_chances_is_reliable_and_one_that_boasts_is_not():
    random = np.random.default_rng(0)
    chances = random.random((4000, 3))
    labels = (random.random(chances.shape) < chances).astype(float)
    honest, boasting = (
        reliability(chances.ravel(), labels.ravel(), 0.5),
        reliability(np.clip(1.5 * chances.ravel(), 0, 1), labels.ravel(), 0.5),
    )
    assert honest.ece < 0.015 < 0.15 < boasting.ece
    assert honest.brier < boasting.brier
    inside = sum(each.interval[0] <= each.score <= each.interval[1] for each in honest.bins)
    assert inside >= len(honest.bins) - 1
    alone = [reliability(chances[:, k], labels[:, k], 0.5) for k in range(3)]
    assert by_step(chances, labels, 0.5) == tuple(alone)


def test_tables_name_what_they_are():
    random = np.random.default_rng(1)
    scores = random.random((50, 4)).astype(np.float32)
    labels = (random.random((50, 4)) < 0.7).astype(np.float32)
    values = random.random((50, 6)).astype(np.float32)
    gates = [report_gate(name, scores, labels, values, 0.55) for name in ("before", "trained")]
    role = report_role("test", 7, labels, values[:, 2:] - values[:, :4])
    assert role.label_rates == pytest.approx(labels.mean(0))
    assert role.intervals[2] == wilson(int(labels[:, 2].sum()), 50)
    assert role.gains[1][2] == pytest.approx(np.median(values[:, 3] - values[:, 1]))
    text = markdown("A title", [role], gates, 0.55, None)
    assert "This is a proposal, not a result" in text
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert f"{gates[0].exits[3].latent_steps:.2f}" in rows["0.55"]
    assert f"{gates[1].overall.ece:.4f}" in rows["trained"]
    assert "AUC -" in text
