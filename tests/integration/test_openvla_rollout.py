"""An OpenVLA policy in a real simulator, straight from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.protocol import play_episode
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import make_simulator
from tests.support.openvla_folder import write_tokenizer
from tests.support.policies import some_statistics, stirred_policy


@pytest.mark.parametrize(("name", "decisions"), [("openvla_oft_tiny", 3), ("openvla_tiny", 24)])
def test_a_loaded_policy_plays_an_episode(name: str, decisions: int, tmp_path: Path) -> None:
    config = preset(name)
    write_tokenizer(tmp_path / "tokenizer.json", config.backbone.language.empty)
    config = dataclasses.replace(config, tokenizer=(tmp_path / "tokenizer.json").read_text())
    save_checkpoint(
        tmp_path / "policy", stirred_policy(config), some_statistics(), stage="import", provenance={"seed": 0}
    )
    loaded = load_checkpoint(tmp_path / "policy")
    simulator = make_simulator(
        SimulatorConfig(
            suite="tabletop",
            tasks=(0,),
            assets="bundled",
            render="fast",
            image_size=config.backbone.camera_size,
            max_steps=24,
        )
    )
    try:
        agent = Agent(loaded.policy, loaded.statistics)
        first, again = (
            play_episode(simulator, agent, ExitSetting(exit_threshold=0.5), task=0, initial_state=1) for _ in range(2)
        )
        observation = simulator.reset(0, initial_state=1, seed=1)
        _, actions, _ = agent.decide([observation], agent.policy.initial_belief(1))
    finally:
        simulator.close()
    assert first.steps == 24
    assert len(first.latent_steps) == decisions
    assert first.latent_steps == again.latent_steps
    assert actions.shape == (1, config.chunk, 7)
    assert set(np.unique(actions[..., -1])) <= {-1.0, 1.0}
