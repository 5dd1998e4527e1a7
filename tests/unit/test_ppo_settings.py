"""Settings of PPO: recipes, limits, the fading demonstration weight."""

from __future__ import annotations

import pytest

from actors.async_ppo_config import AsyncPPOConfig
from actors.settings import RECIPES, PPOSettings, recipe
from avavla_ray.errors import InputError


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
    [({"gamma": 1.5}, "gamma 1.5"), ({"epochs": 0}, "epochs 0"), ({"max_lag": -1}, "max lag -1")],
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
