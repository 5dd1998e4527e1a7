"""Settings of learning from demonstrations: recipes, stages on the command line, TOML files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.demonstrations.augmentation import Augmentation
from avavla_ray.errors import InputError
from avavla_ray.training.settings import RECIPES, CloningSettings, Stage, parse_stages, recipe
from avavla_ray.training.stages import check_stages


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_sense(name):
    assert recipe(name, seed=3).seed == 3
    assert recipe(name, steps=None) == recipe(name)


def test_steps_and_minutes_of_a_recipe_can_be_changed_apart():
    assert recipe("demo", steps=7) == recipe("demo", steps=7, minutes=recipe("demo").minutes)
    assert recipe("default", minutes=1.0).steps == recipe("default").steps


@pytest.mark.parametrize(
    ("changes", "alone", "of_two"),
    [({}, 0, 2), ({"offload": "optimizer"}, 2, 2), ({"offload": "all"}, 3, 3), ({"zero_stage": 1}, 1, 1)],
)
def test_a_worker_alone_shares_nothing_unless_it_has_to(changes, alone, of_two):
    settings = recipe("tiny", **changes)
    assert (settings.sharding(1), settings.sharding(2)) == (alone, of_two)


def test_an_unknown_recipe_is_answered_with_the_closest():
    with pytest.raises(InputError, match="did you mean 'demo'"):
        recipe("dmo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "training has no end"),
        ({"steps": 0}, "needs more than none"),
        ({"minutes": -1.0}, "needs more than none"),
        ({"stages": ()}, "training has no stages: give at least one of cloning, latent_warm_up, exit_calibration"),
        ({"rise": 1.5}, "rise 1.5 is outside"),
        ({"workers": 0}, "workers 0 is too small"),
        ({"decisions": 0}, "decisions 0 is too small"),
        ({"streams": 5, "workers": 2, "accumulation": 3}, "5 streams are too few .* at least 6"),
        ({"workers": 2, "min_workers": 3}, "min_workers 3 of 2 workers: give 1 to 2"),
        ({"offload": "optimiser"}, "unknown offload 'optimiser': did you mean 'optimizer'"),
        ({"exit_target": "values"}, "did you mean 'value'"),
        ({"exit_delta": -0.1}, "exit_delta -0.1 is negative"),
        ({"average": 1.0}, "average 1.0 is not a decay"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        CloningSettings(**{"steps": 1, **changes})


def test_stages_are_read_off_a_command_line():
    assert parse_stages("cloning=0.8@1e-4", "latent_warm_up=0.2", "exit_calibration@2e-3", "cloning") == (
        Stage("cloning", 0.8, 1e-4), Stage("latent_warm_up", 0.2), Stage("exit_calibration", 1.0, 2e-3),
        Stage("cloning"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clone", "unknown stage 'clone': did you mean 'cloning'"),
        ("cloning=", re.escape("stage 'cloning=' is not KIND[=SHARE][@RATE]")),
        ("cloning=a@1", re.escape("is not KIND[=SHARE][@RATE]")),
        ("cloning=0", "stage cloning: share 0.0 is not positive"),
        ("cloning@-1", "stage cloning: learning rate -1.0 is not positive"),
        ("cloning=nan", "share nan is not positive"),
        ("cloning@inf", "learning rate inf is not positive"),
    ],
)
def test_a_stage_that_is_not_right_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_stages(text)


def test_a_file_says_what_a_recipe_says(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'steps = 500\nminutes = 2\nmin_workers = 1\nprecision = "bfloat16"\nrecompute = true\nexit_delta = 0.01\n'
        "[augmentation]\ncrop = 0.9\nshift = 0.1\n"
        '[[stages]]\nkind = "cloning"\nlearning_rate = 1e-4\n'
        '[[stages]]\nkind = "exit_calibration"\nshare = 2\n'
    )
    expected = CloningSettings(
        steps=500, minutes=2.0, min_workers=1, precision="bfloat16", recompute=True, exit_delta=0.01,
        augmentation=Augmentation(shift=0.1, crop=0.9),
        stages=(Stage("cloning", learning_rate=1e-4), Stage("exit_calibration", 2.0)),
    )  # fmt: skip
    assert recipe(path) == expected
    assert isinstance(recipe(path).minutes, float)
    assert recipe(str(path), seed=4, steps=None) == replace(expected, seed=4)
    path.write_text("streams = 8")
    assert recipe(path, steps=3) == CloningSettings(steps=3, streams=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 3", "unknown key 'step': did you mean 'steps'"),
        ("steps = 3.5", "steps is 3.5: give a whole number"),
        ("steps = true", "steps is True: give a whole number"),
        ("steps = 1\nstages = 3", r"stages is 3: give a \[\[stages\]\] table for each stage$"),
        (
            'steps = 1\nstages = { kind = "cloning" }',
            r"stages is {'kind': 'cloning'}: give a \[\[stages\]\] table for each",
        ),
        ('steps = 1\naugmentation = "openvla"', r"augmentation is 'openvla': give an \[augmentation\] table$"),
        ('steps = 1\nstages = ["cloning"]', r"stages 1 is 'cloning': give a \[\[stages\]\] table for each stage$"),
        ("steps = 1\n[[stages]]\nshare = 1", "stages 1 has no kind: add kind = ..."),
        ('steps = 1\n[[stages]]\nkind = "cloning"\n[[stages]]\nkind = "warm"', "stages 2: unknown stage 'warm'"),
        ('steps = 1\n[[stages]]\nkind = "cloning"\nrate = 1', "stages 1: unknown key 'rate'"),
        ("steps = 1\n[augmentation]\nblur = 1", "augmentation: unknown key 'blur'"),
        ("steps = 1\n[augmentation]\ncrop = 2.0", "augmentation: .*crop"),
        ("steps = 1\nworkers = 0", "workers 0 is too small"),
        ("steps = 1\nprecision = 32", 'precision is 32: give a text in "quotes"'),
        ("recompute = 1", "recompute is 1: give true or false"),
        ("steps = ", "is not TOML"),
    ],
)
def test_a_file_that_is_not_right_is_named_with_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{message}") as error:
        recipe(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none.toml'} cannot be read (No such file")):
        recipe(Path(tmp_path / "none.toml"))


def test_stages_must_suit_the_policy():
    calibration = CloningSettings(steps=1, stages=parse_stages("exit_calibration"), exit_target="value")
    check_stages(calibration, latent_loop=True, valued=True)
    check_stages(replace(calibration, exit_target="imitation"), latent_loop=True, valued=False)
    with pytest.raises(InputError, match="no latent loop, give it a stage of cloning"):
        check_stages(calibration, latent_loop=False, valued=True)
    with pytest.raises(InputError, match="value head was never trained"):
        check_stages(calibration, latent_loop=True, valued=False)
