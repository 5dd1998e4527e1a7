"""Stage, learning rate and temperature over training."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.training.budget import cloned, passed, rate_factor, stage_at, used
from avavla_ray.training.settings import CloningSettings, parse_stages

HUNDRED = CloningSettings(
    steps=100, stages=parse_stages("cloning=3", "latent_warm_up=0.75", "exit_calibration=0.25"), rise=0.1, floor=0.05
)


def test_steps_and_minutes_both_end_training():
    both = CloningSettings(steps=100, minutes=2.0)
    assert used(both, 50, 0.0) == 0.5
    assert used(both, 50, 90.0) == 0.75
    assert used(both, 200, 0.0) == 1.0
    assert used(CloningSettings(minutes=1.0), 10_000, 30.0) == 0.5


def test_stages_follow_each_other():
    assert stage_at(HUNDRED, 0.0, True) == (0, 0.0)
    assert stage_at(HUNDRED, 0.375, True) == (0, 0.5)
    assert stage_at(HUNDRED, 0.75, True) == (1, 0.0)
    assert stage_at(HUNDRED, 0.9375, True) == (2, 0.0)
    assert stage_at(HUNDRED, 1.0, True) == (2, 1.0)


def test_a_policy_without_a_latent_loop_has_nothing_to_warm_up_or_to_calibrate():
    assert stage_at(HUNDRED, 0.75, False) == (0, 0.75)
    assert stage_at(HUNDRED, 1.0, False) == (0, 1.0)
    backwards = CloningSettings(steps=1, stages=parse_stages("latent_warm_up", "cloning"))
    assert stage_at(backwards, 0.0, False) == (1, 0.0)
    with pytest.raises(InputError, match="no latent loop"):
        stage_at(CloningSettings(steps=1, stages=parse_stages("latent_warm_up")), 0.0, False)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.floats(0, 1))
def test_every_share_of_the_budget_is_in_one_stage(shares, fraction):
    settings = CloningSettings(steps=1, stages=parse_stages(*(f"cloning={share}" for share in shares)))
    index, done = stage_at(settings, fraction, True)
    assert 0 <= done <= 1
    before = sum(shares[:index]) + done * shares[index]
    assert before / sum(shares) == pytest.approx(fraction, abs=1e-9)
    assert cloned(settings, fraction, True) == pytest.approx(fraction, abs=1e-9)


def test_the_temperature_follows_cloning_alone():
    mixed = CloningSettings(steps=1, stages=parse_stages("cloning=2", "latent_warm_up", "cloning"))
    assert [cloned(mixed, fraction, True) for fraction in (0.0, 0.25, 0.5, 0.75, 0.875, 1.0)] == pytest.approx(
        [0, 1 / 3, 2 / 3, 2 / 3, 5 / 6, 1]
    )
    assert cloned(mixed, 0.5, False) == 0.5
    assert cloned(CloningSettings(steps=1, stages=parse_stages("exit_calibration")), 0.0, True) == 1.0


@given(st.floats(0, 1))
def test_the_rate_stays_between_floor_and_peak(done):
    assert 0.01 <= rate_factor(HUNDRED, done) <= 1.0


def test_the_rate_rises_and_falls_as_a_cosine():
    assert rate_factor(HUNDRED, 0.05) == pytest.approx(0.5)
    assert rate_factor(HUNDRED, 0.1) == pytest.approx(1.0)
    assert rate_factor(HUNDRED, 0.55) == pytest.approx(0.05 + 0.95 / 2)
    assert rate_factor(HUNDRED, 1.0) == pytest.approx(0.05)


@given(st.integers(1, 20), st.lists(st.floats(0, 1), max_size=40))
def test_every_mark_is_passed_once_and_the_end_is_one(times, fractions):
    walk = [0.0, *sorted(fractions), 1.0]
    marks = [after for before, after in itertools.pairwise(walk) if passed(before, after, times)]
    assert marks[-1] == 1.0
    assert len(marks) <= times
