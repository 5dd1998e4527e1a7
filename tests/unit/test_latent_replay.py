"""PPO's replay at the paper's sizes: stored latent states give back the rollout's log-probabilities."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from avavla_ray.policy.config import PAPER_LATENT, PolicyConfig, openvla_policy
from avavla_ray.policy.openvla import config as openvla
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import DecisionBatch, PolicyInputs

B, K = 64, 10


@pytest.fixture(scope="module")
def rollout() -> tuple[AvaVlaPolicy, DecisionBatch]:
    """Sampled decisions on a bfloat16 backbone, the samples leaving the latent loop one after the other."""
    torch.manual_seed(0)
    latent = dataclasses.replace(PAPER_LATENT, max_steps=K)
    config = openvla_policy(openvla.preset("openvla_oft_tiny"), latent=latent)
    policy = AvaVlaPolicy(config).eval()
    policy.set_precision("bfloat16")
    with torch.no_grad():
        update = policy.loop.update_policy
        for weight, size in ((update.mean.weight, 0.3), (update.log_std.weight, 0.1)):
            weight.normal_(std=size / weight.shape[-1] ** 0.5)
        policy.loop.exit_gate.leave[1].weight.normal_()
    inputs, belief = observations(config), policy.initial_belief(B)
    scores = policy.decide(inputs, belief, depth=K, draws=policy.draws(len(inputs.images), seed())).trace.exit_score
    threshold = float(scores.max(dim=1).values.median())
    return policy, policy.decide(
        inputs, belief, exit_threshold=threshold, draws=policy.draws(len(inputs.images), seed())
    )


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def observations(config: PolicyConfig) -> PolicyInputs:
    generator, size = torch.Generator().manual_seed(2), config.backbone.image_size
    images = torch.randint(0, 256, (B, 2, size, size, 3), dtype=torch.uint8, generator=generator)
    text = torch.randint(3, 200, (B, 12), generator=generator)
    return PolicyInputs(images, text, torch.randn(B, config.proprio_dim, generator=generator))


def test_rows_leave_one_after_the_other(rollout):
    policy, decision = rollout
    steps = decision.trace.steps
    assert len(steps.unique()) >= 4
    assert not torch.equal(steps, steps.sort().values)  # so that compaction did reorder rows
    assert all(parameter.dtype == torch.bfloat16 for parameter in policy.backbone.parameters())
    assert decision.context.encoding.dtype == decision.trace.log_prob.dtype == torch.float32


@pytest.mark.parametrize("minibatch", [1, 64, B * K])
def test_stored_states_replay_the_rollouts_log_probabilities(rollout, minibatch):
    policy, decision = rollout
    trace = decision.trace
    rows, steps = (torch.arange(K) < trace.steps[:, None]).nonzero().T
    order = torch.randperm(len(rows), generator=seed())[: 64 * minibatch]
    for part in order.split(minibatch):
        row, k = rows[part], steps[part]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            log_prob, entropy = policy.log_prob_entropy(
                trace.z[row, k], trace.u[row, k], decision.context.encoding[row]
            )
        torch.testing.assert_close(log_prob, trace.log_prob[row, k], atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy, trace.entropy[row, k], atol=1e-6, rtol=0)


def test_the_replay_follows_the_weights(rollout):
    policy, decision = rollout
    bias = policy.loop.update_policy.mean.bias
    trace = decision.trace
    with torch.no_grad():
        bias.add_(0.01)
        log_prob, _ = policy.log_prob_entropy(trace.z[:, 0], trace.u[:, 0], decision.context.encoding)
        bias.sub_(0.01)
    assert (log_prob - trace.log_prob[:, 0]).abs().median() > 1e-3
