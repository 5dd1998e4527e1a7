from __future__ import annotations

import numpy as np
import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Observation
from tests.support.policies import some_statistics, stirred_policy, tiny


@pytest.fixture
def agent() -> Agent:
    return Agent(stirred_policy(tiny()), some_statistics())


def observation(seed: int, instruction: str = "pick up the milk") -> Observation:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return Observation(images, generator.normal(size=8).astype(np.float32), instruction)


def test_inputs_are_normalised_and_tokenised(agent):
    observations = [observation(0), observation(1, "open the drawer")]
    inputs = agent.inputs(observations)
    assert inputs.images.dtype == torch.uint8
    assert np.array_equal(inputs.images[1].numpy(), observations[1].images)
    expected = agent.statistics.proprio.normalise(np.stack([o.proprio for o in observations]))
    np.testing.assert_array_equal(inputs.proprio.numpy(), expected)
    assert inputs.text.ne(0).sum(1).tolist() == [4, 3]


def test_actions_are_unnormalised_clipped_and_the_gripper_binary(agent):
    chunk = torch.zeros(1, 8, 7)
    chunk[0, 0] = torch.tensor([1.0, -1.0, 5.0, 0.0, 0.0, 0.0, 0.1])
    chunk[0, 1, 6] = -0.1
    actions = agent.actions(chunk)
    field = agent.statistics.action
    np.testing.assert_allclose(actions[0, 0, 0], np.clip(field.q99[0], -1, 1), rtol=1e-6)
    np.testing.assert_allclose(actions[0, 0, 1], np.clip(field.q01[1], -1, 1), rtol=1e-6)
    np.testing.assert_allclose(actions[0, 0, 3], np.clip((field.q01[3] + field.q99[3]) / 2, -1, 1), rtol=1e-5)
    assert actions[0, 0, 2] == 1
    assert actions[0, :2, 6].tolist() == [1, -1]
    assert actions.dtype == np.float32


def test_a_gripper_that_counts_openness_is_turned_round():
    agent = Agent(stirred_policy(tiny(gripper="open_fraction")), some_statistics())
    chunk = torch.zeros(1, 8, 7)
    chunk[0, :4, 6] = torch.tensor([1.0, 0.6, 0.4, 0.0])
    assert agent.actions(chunk)[0, :4, 6].tolist() == [-1, -1, 1, 1]


def test_decide_hands_back_decision_actions_and_time(agent):
    decision, actions, milliseconds = agent.decide(
        [observation(0), observation(1)], agent.policy.initial_belief(2), depth=3
    )
    assert actions.shape == (2, 8, 7)
    np.testing.assert_array_equal(actions, agent.actions(decision.chunk))
    assert np.abs(actions).max() <= 1
    assert set(np.unique(actions[..., 6])) <= {-1.0, 1.0}
    assert (decision.trace.steps == 3).all()
    assert milliseconds > 0


def test_an_instruction_without_words_is_refused(agent):
    with pytest.raises(InputError, match="no words"):
        agent.inputs([observation(0, "")])
