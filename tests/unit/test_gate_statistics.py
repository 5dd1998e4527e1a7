"""The gate replayed on fixed states: by hand, and as the loop itself exits at a first decision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avavla_ray.learning.exit_labels import exit_labels, value_gains
from avavla_ray.learning.gate_statistics import predict_exits, predicted_depths, value_auc
from avavla_ray.policy.config import PAPER_THRESHOLDS
from avavla_ray.policy.reasoning import ExitGate
from avavla_ray.training.gate_training import gate_logits
from tests.support.policies import random_belief, random_inputs, stirred_policy, tiny


def test_exits_by_hand():
    scores = np.array([[0.2, 0.6, 0.1], [0.7, 0.1, 0.1], [0.1, 0.2, 0.3], [0.6, 0.6, 0.6]], np.float32)
    values = np.array([[0, 0.1, 0.2, 0.3, 0.4], [0, 0.5, 0.1, 0.1, 0.1], [0, 0, 0, 0, 1], [0, 0.3, 0.3, 0.3, 0.2]])
    assert predicted_depths(scores, 0.5).tolist() == [2, 1, 4, 1]
    assert predicted_depths(scores, 0.6).tolist() == [4, 1, 4, 4]  # a score has to exceed the threshold
    (found,) = predict_exits(scores, values, [0.5])
    assert found.latent_steps == 2.0
    assert found.early == 0.75
    assert found.value_given_up == pytest.approx(np.mean([0.2, -0.4, 0.0, -0.1]))


def test_a_replay_exits_as_the_loop_does():
    policy = stirred_policy(tiny(), seed=1).eval()
    with torch.no_grad():
        for parameter in policy.loop.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    inputs, belief = random_inputs(policy.config, 24), random_belief(policy, 24)
    states = policy.decide(inputs, belief, depth=5).trace.z
    scores = ExitGate.score(gate_logits(policy, states[:, 1:-1])).numpy()
    between = np.sort(scores.ravel())[[10, 40, 70]] + 1e-5
    for threshold in (*PAPER_THRESHOLDS, *between.tolist()):
        taken = policy.decide(inputs, belief, exit_threshold=threshold).trace.steps
        assert predicted_depths(scores, threshold).tolist() == taken.tolist()
    assert len(set(predicted_depths(scores, between[1]).tolist())) > 2


def test_steps_rise_with_the_threshold_to_all_of_them():
    random = np.random.default_rng(0)
    found = predict_exits(random.random((200, 4)).astype(np.float32), random.random((200, 6)))
    assert [each.threshold for each in found] == list(PAPER_THRESHOLDS)
    steps = [each.latent_steps for each in found]
    assert steps == sorted(steps)
    assert (found[-1].latent_steps, found[-1].early, found[-1].value_given_up) == (5.0, 0.0, 0.0)


def test_how_well_values_tell_success():
    assert value_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert value_auc(np.array([0.1, 0.9]), np.array([True, True])) is None


def test_labels_are_gains_below_delta():
    values = torch.tensor([[0.0, 0.10, 0.20, 0.30, 0.31, 0.32]])
    torch.testing.assert_close(value_gains(values), torch.tensor([[0.21, 0.12, 0.02, 0.01]]))
    for delta in (0.0, 0.015, 0.05, 0.15):
        assert torch.equal(exit_labels(values, delta), (value_gains(values) < delta).float())
