"""The composite reward, number by number."""

from __future__ import annotations

import math

import torch

from avavla_ray.learning.rewards import composite_reward, latent_change
from avavla_ray.policy.reasoning import clamped_entropy


def test_equals_the_definition():
    torch.manual_seed(0)
    T, K, Z = 6, 4, 3
    z, entropy, task = torch.randn(T, K + 1, Z), torch.rand(T, K), torch.randn(T)
    steps = torch.tensor([1, 2, 3, 4, 4, 1])
    for t in range(T):
        z[t, steps[t] + 1 :] = 0  # as a trace stores it
    reward = composite_reward(task, z, entropy, steps, lambda_entropy=0.01, lambda_delta=0.1)
    for t in range(T):
        for k in range(K):
            expected = 0.0
            if k < steps[t]:
                movement = sum(float(z[t, k + 1, i] - z[t, k, i]) ** 2 for i in range(Z)) / Z
                expected = -0.01 * float(entropy[t, k]) - 0.1 * movement
            if k == steps[t] - 1:
                expected += float(task[t])
            assert math.isclose(float(reward[t, k]), expected, abs_tol=1e-6)


def test_penalties_can_be_switched_off():
    reward = composite_reward(
        torch.tensor([1.0]), torch.randn(1, 3, 2), torch.rand(1, 2), torch.tensor([2]), lambda_entropy=0, lambda_delta=0
    )
    torch.testing.assert_close(reward, torch.tensor([[0.0, 1.0]]))


def test_every_latent_step_taken_costs_its_compute():
    """Three steps of a decision that thinks twice: 0.25 each for the two, and the task's reward with the second."""
    nothing = {"lambda_entropy": 0, "lambda_delta": 0}
    z, entropy = torch.randn(2, 4, 2), torch.rand(2, 3)
    steps, task = torch.tensor([2, 3]), torch.tensor([1.0, 0.0])
    reward = composite_reward(task, z, entropy, steps, compute_cost=0.25, **nothing)
    torch.testing.assert_close(reward, torch.tensor([[-0.25, 0.75, 0.0], [-0.25, -0.25, -0.25]]))
    dearer = composite_reward(task, z, entropy, steps, compute_cost=0.25)
    cost = composite_reward(task, z, entropy, steps) - dearer
    torch.testing.assert_close(cost, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.25]]))


def test_what_is_stored_past_the_last_step_need_not_be_a_number():
    z, entropy = torch.zeros(1, 4, 2), torch.zeros(1, 3)
    z[0, 2:], entropy[0, 1:] = math.nan, math.inf
    reward = composite_reward(torch.tensor([1.0]), z, entropy, torch.tensor([1]), compute_cost=0.5)
    torch.testing.assert_close(reward, torch.tensor([[0.5, 0.0, 0.0]]))


def test_latent_change_has_one_entry_a_step():
    z = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [1.0, 3.0]]])
    torch.testing.assert_close(latent_change(z), torch.tensor([[5.0, 0.0]]))


def test_entropy_is_never_negative_and_averages_over_dimensions():
    wide, narrow = math.log(1.0), math.log(1e-3)
    one = 0.5 * math.log(2 * math.pi * math.e)
    torch.testing.assert_close(clamped_entropy(torch.tensor([[wide, narrow]])), torch.tensor([one / 2]))
    assert clamped_entropy(torch.tensor([[narrow, narrow]])) == 0
