"""What decides for a runner answers every question alike, whatever is asked beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.placement import Answer, PolicyCopy, Question, answer_together
from actors.weights import WeightHandle
from avavla_ray.policy.action_noise import with_action_noise
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.translation import Translation
from avavla_ray.policy.types import Belief, Draws, PolicyInputs
from tests.support.fragments import POINT
from tests.support.point_simulator import PointSimulator, point_statistics
from tests.support.policies import stirred_policy, tiny


@pytest.fixture
def policy() -> AvaVlaPolicy:
    policy = stirred_policy(tiny()).eval()
    with_action_noise(policy, 0.1)
    return policy


def question(policy: AvaVlaPolicy, decided: int, rest: int, seed: int, *, actions: bool = True) -> Question:
    config, random, N = policy.config, np.random.default_rng(seed), decided + rest
    observations = [PointSimulator(POINT).reset(row % 2, seed=seed + row) for row in range(N)]
    return Question(
        Translation(config, point_statistics()).inputs(observations),
        random.standard_normal((N, config.action_tokens, config.backbone.width), np.float32),
        random.standard_normal((N, config.latent.width), np.float32),
        random.standard_normal((decided, config.latent.max_steps, config.latent.update_dim), np.float32),
        random.standard_normal((decided, config.chunk, config.action_dim), np.float32) if actions else None,
        random.random((decided, config.latent.max_steps), np.float32),
    )


def alike(one: Answer, other: Answer) -> None:
    assert one.rows.keys() == other.rows.keys()
    for name, values in one.rows.items():
        np.testing.assert_allclose(values, other.rows[name], atol=1e-5)
    np.testing.assert_allclose(one.z0, other.z0, atol=1e-5)


def test_a_copy_says_what_its_policy_decides(policy: AvaVlaPolicy) -> None:
    asked = question(policy, 3, 2, seed=0)
    ticket = PolicyCopy(policy, point_statistics(), version=7).ask(asked)
    assert ticket.done
    answer = ticket.result()
    assert answer.version == 7
    inputs = [torch.from_numpy(part) for part in asked.inputs]
    belief = Belief(torch.from_numpy(asked.hidden), torch.from_numpy(asked.history))
    draws = Draws(*(torch.from_numpy(part) for part in (asked.latent, asked.action, asked.exit)))
    decision = policy.decide(
        PolicyInputs(*(part[:3] for part in inputs)), Belief(*(part[:3] for part in belief)), draws=draws
    )
    np.testing.assert_array_equal(answer.rows["chunk"], decision.chunk.numpy())
    np.testing.assert_array_equal(answer.rows["z"], decision.trace.z.numpy())
    np.testing.assert_array_equal(answer.rows["hidden"], decision.belief.hidden.numpy())
    np.testing.assert_array_equal(answer.rows["action_log_prob"], decision.action_log_prob.numpy())
    _, z0 = policy.initial_latent(PolicyInputs(*(part[3:] for part in inputs)), Belief(*(part[3:] for part in belief)))
    np.testing.assert_array_equal(answer.z0, z0.numpy())


def test_questions_are_answered_together_as_each_would_be_alone(policy: AvaVlaPolicy) -> None:
    asked = [question(policy, *sizes, seed=10 * seed) for seed, sizes in enumerate([(2, 0), (1, 2), (0, 1), (3, 1)])]
    together = answer_together(policy, asked, 4, None, batch=9)
    for one, answer in zip(asked, together, strict=True):
        assert (answer.version, answer.batch, answer.together) == (4, 9, 4)
        assert len(answer.z0) == len(one) - one.decided
        if one.decided:
            alike(answer, answer_together(policy, [one], 4, None)[0])


def test_what_came_through_an_object_store_can_only_be_read(policy: AvaVlaPolicy) -> None:
    asked = question(policy, 2, 1, seed=3)
    expected = answer_together(policy, [asked], 0, None)[0]
    for part in (*asked.inputs, asked.hidden, asked.history, asked.latent, asked.action, asked.exit):
        part.flags.writeable = False
    alike(answer_together(policy, [asked], 0, None)[0], expected)


def test_older_weights_are_not_taken(policy: AvaVlaPolicy) -> None:
    copy = PolicyCopy(policy, point_statistics(), version=5)
    for version in (3, 5):
        copy.use(WeightHandle(version, ()))
        assert copy.version == 5
