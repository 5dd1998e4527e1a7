"""The space of exit thresholds: every point is a setting, and every searcher finds the best of a known surface."""

import optuna
import pytest

from avavla_ray.errors import InputError
from tune_spaces.exit_thresholds import ExitSpace, sampler

INSTRUCTIONS = ("pick up the soup", "open the drawer", "pick up the milk")


@pytest.mark.parametrize(
    ("by", "names", "label"),
    [
        ("global", ("threshold",), "threshold_0.40"),
        ("depth", ("threshold_1", "threshold_2", "threshold_3"), "threshold_0.40_0.40_0.40"),
        ("family", ("threshold_pick", "threshold_open"), "threshold_0.40_pick_0.40_open_0.40"),
    ],
)
def test_points_are_settings(by, names, label):
    space = ExitSpace.of(by, 4, INSTRUCTIONS)
    assert space.names == names
    assert space.setting(space.spread(0.4)).label == label
    drawn = optuna.create_study().ask(space.distributions())
    setting = space.setting(drawn.params)
    assert setting.label == space.setting({name: round(value, 2) for name, value in drawn.params.items()}).label


def test_tasks_of_other_families_get_the_most_careful_threshold():
    space = ExitSpace("family", 4, ("pick", "open"))
    setting = space.setting({"threshold_pick": 0.3, "threshold_open": 0.7000001})
    assert setting.of("open the drawer").exit_threshold == 0.7
    assert setting.of("pick it up").exit_threshold == 0.3
    assert setting.of("turn the knob").exit_threshold == 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("globl", 5), "did you mean 'global'"),
        (("global", 1), "never asked"),
        (("family", 5), "name the tasks' families"),
        (("global", 5, (), 0.5, 0.4), "in order"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ExitSpace(*arguments)


def test_an_unknown_searcher_is_refused():
    with pytest.raises(InputError, match="unknown searcher"):
        sampler("annealing", 0)


@pytest.mark.parametrize("searcher", ["tpe", "gp"])
def test_a_searcher_finds_the_best_within_a_constraint(searcher):
    """Success rises with the threshold, and so does the cost: the best is where the cost is at its limit."""
    space = ExitSpace("global", 5)
    study = optuna.create_study(direction="maximize", sampler=sampler(searcher, 0))
    for _ in range(12):
        trial = study.ask(space.distributions())
        threshold = trial.params["threshold"]
        trial.set_constraint("over", 1 + 4 * threshold - 3.0)
        study.tell(trial, 0.5 + 0.4 * threshold)
    assert 0.4 <= study.best_trial.params["threshold"] <= 0.5
