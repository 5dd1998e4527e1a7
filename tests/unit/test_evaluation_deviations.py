"""What an evaluation does otherwise than its benchmark is named in its results."""

import pytest

from avavla_ray.evaluation.deviations import chain_deviations, episode_deviations
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import suite_spec


def test_the_official_protocol_deviates_in_nothing():
    spec = suite_spec("libero_goal")
    official = SimulatorConfig(suite="libero_goal", assets="official", render="reference")
    assert episode_deviations(spec, official, {"assets": "official"}, 50) == []
    assert chain_deviations(SimulatorConfig(suite="calvin_d", render="reference"), 1000) == []


def test_every_deviation_of_episodes_is_named():
    spec = suite_spec("libero_goal")
    config = SimulatorConfig(suite="libero_goal", tasks=(2, 3), assets="bundled", render="fast", max_steps=7)
    assert episode_deviations(spec, config, {"assets": "bundled"}, 3) == [
        "render fast instead of reference", "assets bundled instead of official", "7 steps instead of 300",
        "3 initial states a task instead of 50", "tasks [2, 3] only",
    ]  # fmt: skip


def test_every_deviation_of_chains_is_named():
    config = SimulatorConfig(suite="calvin_b", render="fast", max_steps=12)
    assert chain_deviations(config, 5, experts=True) == [
        "scene B instead of D", "render fast instead of reference", "12 steps a task instead of 360",
        "the first 5 sequences instead of 1,000", "scripted experts, which see the simulator's state",
    ]  # fmt: skip


@pytest.mark.parametrize(("suite", "named"), [("calvin_d", True), ("tabletop", False)])
def test_starts_that_the_benchmark_does_not_publish_are_a_deviation(suite, named):
    found = episode_deviations(suite_spec(suite), SimulatorConfig(suite=suite, render="reference"), {}, 50)
    assert any("CALVIN does not publish" in one for one in found) is named
