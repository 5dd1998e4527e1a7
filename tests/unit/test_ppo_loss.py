"""ppo_loss against a loop over single latent steps."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.learning.ppo import ppo_loss

NUMBERS = st.floats(-2, 2, width=32)


def reference(rows, clip, value_coefficient, max_weight):
    count = max(len(rows), 1)
    policy = value = kl = clipped = total_weight = 0.0
    for new, proximal, behaviour, advantage, predicted, target in rows:
        ratio = math.exp(new - proximal)
        weight = min(math.exp(proximal - behaviour), max_weight)
        inside = min(max(ratio, 1 - clip), 1 + clip)
        policy -= weight * min(ratio * advantage, inside * advantage) / count
        value += (predicted - target) ** 2 / count
        kl += (ratio - 1 - math.log(ratio)) / count
        clipped += (abs(ratio - 1) > clip) / count
        total_weight += weight / count
    return policy + value_coefficient * value, policy, value, kl, clipped, total_weight


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[NUMBERS] * 6, st.booleans()), min_size=1, max_size=12), st.floats(0.05, 0.5))
def test_agrees_with_a_loop_over_steps(rows, clip):
    columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
    loss = ppo_loss(*columns[:6], columns[6], clip=clip, value_coefficient=0.5, max_weight=2.0)
    expected = reference([row[:6] for row in rows if row[6]], clip, 0.5, 2.0)
    for got, want in zip(loss, expected, strict=True):
        assert math.isclose(float(got), want, rel_tol=1e-4, abs_tol=1e-4)


def tensors(n=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator) for _ in range(4)]


def test_first_ratio_is_one_and_its_gradient_the_plain_policy_gradient():
    log_prob, advantages, values, returns = tensors()
    log_prob.requires_grad_()
    everywhere = torch.ones(32, dtype=torch.bool)
    stored = log_prob.detach().clone()
    loss = ppo_loss(log_prob, stored, stored, advantages, values, returns, everywhere)
    assert loss.approx_kl == 0
    assert loss.clip_fraction == 0
    assert loss.weight == 1
    torch.testing.assert_close(loss.policy, -advantages.mean())
    loss.total.backward()
    torch.testing.assert_close(log_prob.grad, -advantages / 32)


def test_clipping_stops_the_gradient_only_where_it_would_go_further():
    log_prob = torch.tensor([1.0, 1.0, -1.0, -1.0], requires_grad=True)
    zero = torch.zeros(4)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    ppo_loss(log_prob, zero, zero, advantages, zero, zero, torch.ones(4, dtype=torch.bool)).total.backward()
    assert (log_prob.grad != 0).tolist() == [False, True, True, False]


def test_stale_behaviour_scales_the_surrogate_up_to_the_truncation():
    zero, one = torch.zeros(1), torch.ones(1)
    mask = torch.ones(1, dtype=torch.bool)
    for gap, weight in ((0.0, 1.0), (0.5, math.exp(0.5)), (-1.0, math.exp(-1.0)), (9.0, 2.0)):
        loss = ppo_loss(zero, zero, zero - gap, one, zero, zero, mask, max_weight=2.0)
        assert math.isclose(float(loss.policy), -weight, rel_tol=1e-6)


def test_entries_outside_the_mask_count_for_nothing_even_if_they_are_not_numbers():
    log_prob, advantages, values, returns = tensors(4)
    mask = torch.tensor([True, True, False, False])
    log_prob[2], returns[3] = math.inf, math.nan
    log_prob.requires_grad_()
    loss = ppo_loss(log_prob, torch.zeros(4), torch.zeros(4), advantages, values, returns, mask)
    assert torch.isfinite(loss.total)
    loss.total.backward()
    assert not log_prob.grad[2:].any()
