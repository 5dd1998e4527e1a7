"""The space of PPO's credit assignment, schedulers that outlive their driver, and recipes in files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from actors.settings import PPOSettings, recipe, save_recipe
from actors.sweep_gae import last_rows, trials_table
from avavla_ray.errors import InputError
from tune_spaces.gae import LADDERS, METRIC, TIME, defaults, domains, in_use, scheduler, space

NAMES = tuple(domains())


def test_every_point_is_a_setting_of_ppo():
    for _ in range(50):
        PPOSettings(**{name: domain.sample() for name, domain in domains().items()})
    assert PPOSettings(**defaults(NAMES, PPOSettings())) == PPOSettings()
    assert list(space(("clip",), "asha")) == ["clip"]


def test_pbt_steps_along_ladders_that_hold_the_papers_values():
    assert LADDERS.keys() == domains().keys()
    for name, value in defaults(NAMES, PPOSettings()).items():
        assert value in LADDERS[name]
        assert LADDERS[name] == sorted(LADDERS[name])
        for rung in LADDERS[name]:
            PPOSettings(**{name: rung})
    rungs = space(NAMES, "pbt")
    pbt = scheduler("pbt", 400, Path("rows"), rungs, seed=0)
    point = defaults(NAMES, PPOSettings())
    for _ in range(200):
        point, _ = pbt._get_new_config(None, SimpleNamespace(config=point))
        assert all(point[name] in LADDERS[name] for name in NAMES)


def test_what_a_recipe_switches_off_is_not_swept_unasked():
    assert in_use(PPOSettings()) == NAMES
    assert set(NAMES) - set(in_use(recipe("libero"))) == {"lambda_entropy", "lambda_delta"}


def test_what_can_not_be_swept_is_refused():
    with pytest.raises(InputError, match="did you mean 'gae_lambda'"):
        space(("gae_lamda",), "asha")
    with pytest.raises(InputError, match="--over"):
        space((), "pbt")


def row(trial, steps, success, latent=2.0):
    return {"trial": trial, TIME: steps, METRIC: success, "mean_latent_steps": latent, "ms_per_decision": 1.0,
            "lag": 0.5, "restarts": 0, "episodes": 40, "window": 40, "config": {"clip": 0.2}}  # fmt: skip


def results(asha, trial, *points):
    trial = SimpleNamespace(trial_id=trial)
    asha.on_trial_add(None, trial)
    return [asha.on_trial_result(None, trial, {TIME: steps, METRIC: success}) for steps, success in points]


def test_asha_stops_what_is_behind_also_after_its_driver_was_killed(tmp_path):
    rows = tmp_path / "results.jsonl"
    good = [row(f"good{i}", 100, 0.8 + i / 100) for i in range(4)]
    asha = scheduler("asha", 900, rows, {}, seed=0)
    for each in good:
        results(asha, each["trial"], (each[TIME], each[METRIC]))
    assert results(asha, "bad", (100, 0.1)) == [TrialScheduler.STOP]

    rows.write_text("".join(json.dumps(each) + "\n" for each in good))
    again = scheduler("asha", 900, rows, {}, seed=0)
    assert results(again, "bad", (99, 0.1), (100, 0.1)) == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    forgetful = scheduler("asha", 900, tmp_path / "nothing", {}, seed=0)
    assert results(forgetful, "bad", (100, 0.1)) == [TrialScheduler.CONTINUE]


def test_the_best_trial_went_to_the_end(tmp_path):
    path = tmp_path / "results.jsonl"
    told = [row("a", 100, 0.9), row("b", 500, 0.2), row("b", 1000, 0.6), row("c", 980, 0.6, latent=1.0)]
    path.write_text("".join(json.dumps(each) + "\n" for each in told))
    ranked = last_rows(path)
    assert [each["trial"] for each in ranked] == ["c", "b", "a"]
    table = trials_table(ranked)
    assert "60.0% (44.6% - 73.7%)" in table, "Wilson's interval of 24 of 40"
    assert table.count("\n") == 5


def test_recipes_go_through_files(tmp_path):
    settings = recipe("demo", gae_lambda=0.9, max_lag=2)
    save_recipe(tmp_path / "best.json", settings, success_rate=0.5)
    assert recipe(str(tmp_path / "best.json")) == settings
    assert recipe(str(tmp_path / "best.json"), clip=0.1).clip == 0.1
    (tmp_path / "own.toml").write_text("[settings]\ngamma = 0.98\nmax_lag = 1\n")
    assert recipe(str(tmp_path / "own.toml")) == PPOSettings(gamma=0.98, max_lag=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.json", None, "can't be read"),
        ("torn.json", '{"settings": ', "can't be read"),
        ("list.json", "[]", "is no recipe"),
        ("typo.toml", "[settings]\ngama = 0.9\n", "did you mean 'gamma'"),
        ("wrong.toml", "[settings]\ngamma = 1.9\n", "gamma 1.9"),
        ("papre", None, "did you mean 'paper'"),
    ],
)
def test_a_recipe_that_can_not_be_read_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    path = str(tmp_path / name) if "." in name else name
    with pytest.raises(InputError, match=message):
        recipe(path)
