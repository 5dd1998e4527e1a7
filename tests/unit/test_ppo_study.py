"""What a study of ways of doing PPO trains: every variant is one that the PPO job takes, and differs in one thing."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from actors.ppo_job import Settings as PPOJob
from actors.ppo_job import choose, configure
from actors.settings import PPOSettings, save_recipe
from avavla_ray.command_line import switch_values
from avavla_ray.errors import InputError
from avavla_ray.evaluation.ppo_study import BASE, LAGS, PANELS, Way, chosen, lines, ways
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import SimulatorConfig
from jobs import study_ppo
from jobs.study_ppo import Settings, apart, check, main
from tests.support.demonstration_data import make_dataset
from tests.support.point_simulator import point_statistics

BASES = [Way(), Way(train_actions=True), Way(max_lag=2, correction="vtrace")]
ALL = tuple(PANELS)
WHAT_CHANGES = {
    "synchronous": {"max_lag"}, "actions": {"train_actions"}, "latent_only": {"train_actions"}, "no_cloning": {"demos"},
}  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_a_variant_changes_what_it_is_named_after_and_nothing_else(base: Way) -> None:
    family = chosen(ALL, base)
    assert next(iter(family)) == BASE
    assert len(set(family.values())) == len(family), "two that are alike would be trained twice"
    for name, way in family.items():
        differing = {key for key, value in asdict(way).items() if value != asdict(base)[key]}
        assert differing <= WHAT_CHANGES.get(name, {"max_lag", "correction", "delay"}), name
        assert differing or name == BASE
    assert len(family) == 4 + 2 * len(LAGS)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("panel", PANELS)
def test_every_line_of_a_panel_is_trained(panel: str, base: Way) -> None:
    shown = lines(panel, base)
    assert {line.variant for line in shown} <= chosen([panel], base).keys()
    looks = [(line.colour, line.dashed) for line in shown]
    assert len(set(looks)) == len({line.label for line in shown}) == len(shown) >= 2
    assert not any(line.variant == BASE for line in shown) or BASE in chosen([panel], base)
    assert chosen([], base).keys() == {BASE}


@pytest.mark.parametrize("actions", [{}, {"learn_action_std": True}, {"imitation_weight": 0.5}])
@pytest.mark.parametrize("base", BASES)
def test_the_ppo_job_takes_the_flags_of_every_variant(base: Way, actions: dict[str, Any], tmp_path: Path) -> None:
    own = tmp_path / "recipe.json"
    without, more = apart(PPOSettings(update_decisions=64, minibatch_decisions=16, train_actions=True, **actions))
    save_recipe(own, without, base="some")
    for name, way in ways(base).items():
        words = way.flags(64, "runs/demos", more)
        job = tyro.cli(PPOJob, args=switch_values([str(word) for word in ["--recipe", own, *words]], PPOJob))
        ppo = choose(job)
        config = configure(job, ppo, SimulatorConfig(suite="tabletop"), demos=job.demos)
        config.validate()
        assert (ppo.max_lag, ppo.correction, ppo.train_actions) == (way.max_lag, way.correction, way.train_actions)
        for each in ("learn_action_std", "imitation_weight"):
            assert getattr(ppo, each) == (way.train_actions and actions.get(each, 0))
        assert (job.demos is None) == (name == "no_cloning")
        assert ppo.update_decisions == 64
        delay = 0 if way.delay is None else way.delay
        assert config.delay_updates == delay
        assert config.most_queued == 64 * (2 if way.delay is None else 1 + delay)


def test_lags_are_waited_for_and_not_dropped() -> None:
    for lag in LAGS:
        for correction in ("decoupled", "naive"):
            way = ways(Way())[f"{correction}_lag_{lag}"]
            assert (way.delay, way.correction) == (lag, correction)
            assert way.max_lag > lag + 1


@pytest.mark.parametrize(
    ("panels", "base", "message"),
    [
        (("stalenes",), Way(), "did you mean 'staleness'"),
        (("cloning",), Way(demos=False), "--panels cloning compares with cloning beside PPO: give --demos"),
        ((), Way(max_lag=0), "the study's base is asynchronous"),
    ],
)
def test_a_study_of_nothing_is_refused(panels: tuple[str, ...], base: Way, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(panels, base)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        suite="tabletop", preset="tiny", recipe="tiny", output=tmp_path / "new",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "calvin_d_chains"}, "a study plays single tasks"),
        ({"episodes": 1000}, "--episodes 1000: tabletop has 1 to"),
        ({"seeds": ()}, "--seeds : give one or several"),
        ({"seeds": (1, 2, 1)}, "--seeds 1 2 1: give one or several, each once"),
        ({"env_steps": 0}, "--env-steps 0: give at least 1"),
        ({"bc_steps": -1}, "--bc-steps -1"),
        ({"recipe": "tinny"}, "did you mean 'tiny'"),
        ({"bc_recipe": "dema"}, "did you mean 'demo'"),
        ({"speed": 1.5}, "expert speed 1.5: give a share"),
        ({"depth": 99}, "99"),
        ({"demos": "nowhere"}, "no demonstrations at nowhere"),
        ({"checkpoint": Path("nowhere")}, "there is no checkpoint at nowhere"),
        ({"tasks": (99,)}, "task 99 does not exist"),
        ({"panels": ("clone",)}, "unknown panel 'clone'"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_starts(settings: Settings, changes: dict, message: str) -> None:
    base, family = check(settings)
    assert (base.max_lag, len(family)) == (4, 10)
    with pytest.raises(InputError, match=message):
        check(replace(settings, **changes))
    assert not settings.output.exists()


def test_a_checkpoint_without_its_demonstrations_has_nothing_to_clone_beside(
    settings: Settings, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "bc", AvaVlaPolicy(preset("tiny")), point_statistics(), stage="bc", provenance={})
    given = replace(settings, checkpoint=tmp_path / "bc")
    with pytest.raises(InputError, match="give --demos, or leave that panel out"):
        check(given)
    base, _ = check(replace(given, panels=("asynchrony",)))
    assert not base.demos
    demos = make_dataset(tmp_path / "demos", episodes=2)
    with pytest.raises(InputError, match="in other units"):
        check(replace(given, demos=demos))


def test_the_recipe_says_what_the_base_learns(settings: Settings, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    save_recipe(own, PPOSettings(train_actions=True, learn_action_std=True, max_lag=2), base="mine")
    base, family = check(replace(settings, recipe=str(own)))
    assert (base.train_actions, base.max_lag) == (True, 2)
    assert "latent_only" in family
    assert check(replace(settings, train_actions=True))[0].train_actions


class Begun(Exception):
    """The settings are written; the rest takes a cluster."""


def test_what_was_trained_with_other_settings_is_not_taken(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Begun

    monkeypatch.setattr("avavla_ray.evaluation.study_chain.run_stage", stop)
    with pytest.raises(Begun):
        main(settings)
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        main(settings)
    with pytest.raises(InputError, match="recipe tiny -> demo"):
        main(replace(settings, resume=True, recipe="demo"))
    with pytest.raises(Begun):
        main(replace(settings, resume=True, seeds=(0, 1, 2), env_steps=200_000, panels=("staleness",)))

    monkeypatch.setattr(study_ppo, "check", lambda _: (Way(), {}))
    other = replace(settings, demos="s3://AKIA1:hushhush@robots/demos?region=eu-west-1", output=tmp_path / "other")
    with pytest.raises(Begun):
        main(other)
    assert "hushhush" not in (other.output / "settings.json").read_text()
