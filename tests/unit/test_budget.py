"""Stage, learning rate and temperature over training."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.training.budget import CLONING, WARM_UP, passed, rate_factor, stage_at, used
from avavla_ray.training.settings import RECIPES, CloningSettings, recipe

HUNDRED = CloningSettings(steps=100, latent_share=0.25, rise=0.1, floor=0.05)


def test_steps_and_minutes_both_end_training():
    both = CloningSettings(steps=100, minutes=2.0)
    assert used(both, 50, 0.0) == 0.5
    assert used(both, 50, 90.0) == 0.75
    assert used(both, 200, 0.0) == 1.0
    assert used(CloningSettings(minutes=1.0), 10_000, 30.0) == 0.5


def test_stages_follow_each_other():
    assert stage_at(HUNDRED, 0.0, True) == (CLONING, 0.0)
    assert stage_at(HUNDRED, 0.375, True) == (CLONING, 0.5)
    assert stage_at(HUNDRED, 0.75, True) == (WARM_UP, 0.0)
    assert stage_at(HUNDRED, 1.0, True) == (WARM_UP, 1.0)
    assert stage_at(HUNDRED, 0.75, False) == (CLONING, 0.75), "a policy without a latent loop has nothing to warm up"
    assert stage_at(CloningSettings(steps=1, latent_share=0.0), 1.0, True) == (CLONING, 1.0)
    assert stage_at(CloningSettings(steps=1, latent_share=1.0), 0.0, True) == (WARM_UP, 0.0)


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


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_sense(name):
    assert recipe(name, seed=3).seed == 3
    assert recipe(name, steps=None) == recipe(name)


def test_steps_and_minutes_of_a_recipe_can_be_changed_apart():
    assert recipe("demo", steps=7) == recipe("demo", steps=7, minutes=recipe("demo").minutes)
    assert recipe("default", minutes=1.0).steps == recipe("default").steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "training has no end"),
        ({"steps": 0}, "needs more than none"),
        ({"minutes": -1.0}, "needs more than none"),
        ({"steps": 1, "latent_share": 1.5}, "latent share 1.5 is outside"),
        ({"steps": 1, "workers": 0}, "workers 0 is too small"),
        ({"steps": 1, "streams": 5, "workers": 2}, "5 streams do not divide among 2 workers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        CloningSettings(**changes)


def test_an_unknown_recipe_is_answered_with_the_closest():
    with pytest.raises(InputError, match="did you mean 'demo'"):
        recipe("dmo")
