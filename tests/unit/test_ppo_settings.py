"""Settings of PPO: recipes, limits, the fading demonstration weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tyro

from actors import ppo_job
from actors.async_ppo_config import AsyncPPOConfig
from actors.learner_group import check_trainable
from actors.settings import RECIPES, PPOSettings, recipe
from avavla_ray.command_line import switch_values
from avavla_ray.errors import InputError
from avavla_ray.policy.config import preset
from tests.support.policies import tiny


def test_switches_of_a_recipe_can_be_switched_off_from_the_command_line() -> None:
    words = switch_values(
        ["--no-train-actions", "--curriculum", "False", "--exit-actions", "--imitation-weight", "0", "--train_gate",
         "--output", "x", "--no-isolate"],
        ppo_job.Settings,
    )  # fmt: skip
    settings = tyro.cli(ppo_job.Settings, args=words)
    assert (settings.train_actions, settings.curriculum, settings.exit_actions) == (False, False, True)
    assert (settings.train_gate, settings.isolate, settings.learn_action_std) == (True, False, None)
    chosen = ppo_job.choose(replace(settings, exit_actions=None))
    assert (chosen.train_actions, chosen.curriculum, chosen.train_gate) == (False, False, True)
    assert ppo_job.choose(ppo_job.Settings()).curriculum, "the recipe's own"


def test_the_defaults_are_the_papers_recipe() -> None:
    settings = recipe("paper")
    assert settings == PPOSettings()
    assert (settings.clip, settings.epochs, settings.minibatch_decisions, settings.update_decisions) == (
        0.2,
        4,
        64,
        512,
    )
    assert (settings.policy_lr, settings.critic_lr, settings.target_kl) == (3e-5, 1e-4, 0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made_and_changed(name: str) -> None:
    assert recipe(name, epochs=7, gamma=None).epochs == 7


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gamma": 1.5}, "gamma 1.5"),
        ({"epochs": 0}, "epochs 0"),
        ({"max_lag": -1}, "max lag -1"),
        ({"correction": "decoupld"}, "decoupled"),
        ({"normalise": "all"}, "normalisation"),
        ({"action_std": 0.0}, "action std 0.0"),
        ({"value_clip": -1.0}, "value clip -1.0"),
        ({"compute_cost": -0.1}, "compute cost -0.1"),
        ({"group_size": 1}, "groups of 1"),
        ({"group_size": 4, "correction": "vtrace"}, "groups have no critic"),
        ({"group_size": 4, "train_gate": True}, "groups have no critic"),
        ({"exit_actions": True, "train_gate": True}, "exit actions train the gate already"),
        ({"learn_action_std": True}, "goes with train actions"),
        ({"imitation_weight": 1.0}, "imitation weight goes with train actions"),
        ({"imitation_streams": 0}, "imitation streams 0"),
        ({"curriculum_low": 0.9, "curriculum_high": 0.1}, "two success rates in order"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        recipe("paper", **changes)


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'paper'"):
        recipe("papre")


def test_the_demonstration_weight_falls_linearly_and_stays() -> None:
    settings = PPOSettings(demonstration_weight=1.0, demonstration_weight_end=0.2, demonstration_updates=4)
    weights = [settings.demonstration_weight_at(update) for update in (0, 2, 4, 100)]
    assert weights == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_the_policys_rate_rises_and_falls_and_stays_down() -> None:
    settings = PPOSettings(warm_up_updates=4, decay_updates=8)
    assert [settings.pace(update) for update in (0, 1, 3, 6, 8, 100)] == [0, 0.25, 0.625, 0.25, 0, 0]
    assert [PPOSettings(warm_up_updates=2).pace(update) for update in (0, 1, 2, 100)] == [0, 0.5, 1, 1]
    assert [PPOSettings(decay_updates=4).pace(update) for update in (0, 1, 4, 5)] == [1, 0.75, 0, 0]
    assert PPOSettings().pace(0) == PPOSettings().pace(100) == 1


def test_a_run_does_not_go_on_after_the_policy_stands_still() -> None:
    job = ppo_job.Settings(decay_updates=10, updates=11)
    with pytest.raises(InputError, match="after --decay-updates 10 the policy stands still"):
        ppo_job.check(job, ppo_job.choose(job))
    ppo_job.check(replace(job, updates=10), ppo_job.choose(job))


def test_the_configuration_carries_the_settings_flat_through_a_dictionary() -> None:
    config = AsyncPPOConfig().training(gamma=0.9, policy_lr=1e-3, checkpoint="somewhere")
    again = AsyncPPOConfig().update_from_dict(config.to_dict())
    assert PPOSettings.of(again) == PPOSettings(gamma=0.9, policy_lr=1e-3)
    assert again.checkpoint == "somewhere"


def test_the_configuration_refuses_what_ppo_cannot_do() -> None:
    with pytest.raises(InputError, match="exit threshold 1.5"):
        AsyncPPOConfig().training(exit_threshold=1.5).validate()
    with pytest.raises(InputError, match="num_env_runners is 0"):
        AsyncPPOConfig().env_runners(num_env_runners=0).validate()


def test_what_ppo_cannot_train_in_a_policy_is_named() -> None:
    actions, exits = PPOSettings(train_actions=True), PPOSettings(exit_actions=True)
    check_trainable(tiny(), "here", actions)
    check_trainable(tiny(latent__enabled=False), "here", actions)
    check_trainable(preset("openvla_oft_tiny"), "here", actions)
    for config, settings, message in (
        (tiny(latent__enabled=False), PPOSettings(), "no latent loop to train"),
        (tiny(latent__enabled=False), replace(actions, exit_actions=True), "no exits to train"),
        (tiny(latent__early_exit=False), exits, "never leaves early"),
        (preset("openvla_tiny"), actions, "no gradient for chunks"),
    ):
        with pytest.raises(InputError, match=message):
            check_trainable(config, "here", settings)
