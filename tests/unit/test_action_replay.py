"""Drawn chunks and exits, and replaying them: whatever was drawn has the same likelihood when it is looked at again."""

from __future__ import annotations

import math

import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.action_noise import with_action_noise
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.reasoning import exit_log_prob
from tests.support.policies import random_belief, random_inputs, some_statistics, stirred_policy, tiny

B = 12


@pytest.fixture(params=[{}, {"latent__enabled": False}, {"recurrent": False}], ids=["whole", "no loop", "no belief"])
def policy(request):
    return stirred_policy(tiny(action_noise=0.2, **request.param)).eval()


def drawn(policy, exits=True):
    draws = policy.draws(B, torch.Generator().manual_seed(3), actions=True, exits=exits)
    inputs, belief = random_inputs(policy.config, B), random_belief(policy, B)
    return inputs, belief, draws, policy.decide(inputs, belief, draws=draws)


def test_a_replay_gives_the_likelihoods_that_were_drawn_with(policy) -> None:
    inputs, belief, _, decision = drawn(policy)
    trace = decision.trace
    replay = policy.replay(inputs, belief, trace.u, trace.steps, decision.chunk)
    valid = torch.arange(trace.u.shape[1]) < trace.steps[:, None]
    torch.testing.assert_close(replay.action_log_prob, decision.action_log_prob, atol=1e-4, rtol=0)
    torch.testing.assert_close(replay.log_prob[valid], trace.log_prob[valid], atol=1e-4, rtol=0)
    torch.testing.assert_close(replay.entropy[valid], trace.entropy[valid], atol=1e-5, rtol=0)
    if policy.loop is not None:
        assert len(trace.steps.unique()) > 1, "nobody left early: the test shows less than it says"
        again = exit_log_prob(replay.exit_logit, trace.steps)
        torch.testing.assert_close(again, trace.exit_log_prob, atol=1e-5, rtol=0)
        states = torch.cat([torch.ones(B, 1, dtype=torch.bool), valid], dim=1)
        torch.testing.assert_close(replay.z[states], trace.z[states], atol=1e-5, rtol=0)


def test_the_likelihood_of_a_chunk_moves_everything_that_had_a_part_in_it() -> None:
    policy = stirred_policy(tiny(action_noise=0.2)).eval()
    inputs, belief, _, decision = drawn(policy)
    replay = policy.replay(inputs, belief, decision.trace.u, decision.trace.steps, decision.chunk)
    replay.action_log_prob.sum().backward()
    moved = {
        name for name, parameters in policy.parameter_groups().items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    }  # fmt: skip
    assert moved == {"backbone", "attention", "action", "encoder", "transition", "noise"}  # u is given, not made


def test_exits_are_drawn_with_the_gates_probability() -> None:
    policy = stirred_policy(tiny()).eval()
    inputs = random_inputs(policy.config, 1)
    many = 4000
    wide = type(inputs)(*(part.expand(many, *part.shape[1:]) for part in inputs))
    uniforms = torch.rand(many, policy.config.latent.max_steps, generator=torch.Generator().manual_seed(1))
    draws = policy.draws(1)._replace(exit=uniforms)
    draws = draws._replace(latent=torch.zeros(many, *draws.latent.shape[1:]))
    trace = policy.decide(wide, policy.initial_belief(many), draws=draws).trace
    score = trace.exit_score[0, 0].item()  # without noise everybody thinks the same
    left = (trace.steps == 1).float().mean().item()
    assert abs(left - score) < 4 * math.sqrt(score * (1 - score) / many)
    assert (trace.exit_log_prob[trace.steps == 1, 0] - math.log(score)).abs().max() < 1e-5


def test_exit_log_probabilities_by_hand() -> None:
    logit = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.5, 9.0], [40.0, -40.0, 0.0]])
    steps = torch.tensor([2, 3, 1])
    s = torch.sigmoid
    expected = torch.stack([
        torch.stack([(1 - s(torch.tensor(0.0))).log(), s(torch.tensor(1.0)).log(), torch.tensor(0.0)]),
        torch.stack([(1 - s(torch.tensor(3.0))).log(), (1 - s(torch.tensor(0.5))).log(), torch.tensor(0.0)]),
        torch.zeros(3),
    ])  # fmt: skip
    torch.testing.assert_close(exit_log_prob(logit, steps), expected, atol=1e-5, rtol=0)


def test_means_have_no_likelihood_and_no_noise_draws_none() -> None:
    quiet = stirred_policy(tiny()).eval()
    inputs, belief = random_inputs(quiet.config, 2), quiet.initial_belief(2)
    assert not quiet.decide(inputs, belief, draws=quiet.draws(2)).action_log_prob.any()
    with pytest.raises(InputError, match="draws no chunks"):
        quiet.decide(inputs, belief, draws=quiet.draws(2, actions=True))
    mean = quiet.decide(inputs, belief).chunk
    with_action_noise(quiet, 0.3)
    assert quiet.config.action_noise == 0.3
    torch.testing.assert_close(quiet.decide(inputs, belief).chunk, mean)
    chunk = quiet.decide(inputs, belief, draws=quiet.draws(2, torch.Generator().manual_seed(0), actions=True)).chunk
    assert (chunk - mean).std() > 0.1
    with_action_noise(quiet, 0.1, keep=True)
    assert quiet.config.action_noise == 0.3


def test_noise_comes_back_from_a_checkpoint(tmp_path) -> None:
    policy = stirred_policy(tiny(action_noise=0.2))
    save_checkpoint(tmp_path / "checkpoint", policy, some_statistics(), stage="ppo", provenance={})
    again = load_checkpoint(tmp_path / "checkpoint").policy
    assert again.config == policy.config
    assert torch.equal(again.action_noise.log_std, policy.action_noise.log_std)


def test_a_decision_does_not_depend_on_who_is_decided_for_beside_it(policy) -> None:
    inputs, belief, draws, whole = drawn(policy)
    rows = torch.tensor([7, 2])
    part = policy.decide(
        type(inputs)(*(x[rows] for x in inputs)), type(belief)(*(x[rows] for x in belief)),
        draws=type(draws)(*(x[rows] for x in draws)),
    )  # fmt: skip
    torch.testing.assert_close(part.chunk, whole.chunk[rows], atol=1e-5, rtol=0)
    assert torch.equal(part.trace.steps, whole.trace.steps[rows])
