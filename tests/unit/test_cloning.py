from __future__ import annotations

import torch

from avavla_ray.learning.cloning import chunk_l1, latent_smoothness


def test_l1_averages_over_the_masked_steps_only():
    prediction = torch.zeros(2, 3, 2)
    target = torch.tensor([[[1.0, 3.0], [2.0, 2.0], [9.0, 9.0]], [[4.0, 4.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(chunk_l1(prediction, target, mask), torch.tensor((1 + 3 + 2 + 2 + 4 + 4) / 6))


def test_parts_of_a_mean_sum_to_it():
    torch.manual_seed(0)
    prediction, target, mask = torch.randn(5, 3, 2), torch.randn(5, 3, 2), torch.rand(5, 3) < 0.5
    parts = (chunk_l1(prediction[i::2], target[i::2], mask[i::2], mask.sum()) for i in range(2))
    torch.testing.assert_close(sum(parts), chunk_l1(prediction, target, mask))


def test_l1_of_an_empty_mask_is_zero_with_zero_gradient():
    prediction = torch.randn(1, 2, 2, requires_grad=True)
    loss = chunk_l1(prediction, torch.randn(1, 2, 2), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert not prediction.grad.any()


def test_smoothness_is_the_mean_squared_movement():
    z = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [1.0, 3.0]]])
    torch.testing.assert_close(latent_smoothness(z), torch.tensor((1 + 2) / 2))
