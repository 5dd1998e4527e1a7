"""PPO from a post-calibrated checkpoint: drawn exits have the likelihood they were drawn with, and the gate learns."""

from __future__ import annotations

import copy

import pytest
import torch

from actors.batch import make_batch
from actors.objective import PPOObjective
from actors.settings import PPOSettings
from avavla_ray.policy.gate_map import GateMap, temperature_map
from avavla_ray.training.exit_objective import ExitObjective
from avavla_ray.training.gate_training import with_gate_maps
from tests.support.cloning_batches import noise_window
from tests.support.drawn_fragments import drawn_fragments
from tests.support.policies import stirred_policy, tiny

BY_STEP = tuple(temperature_map(value) for value in (0.3, 0.8, 1.5, 4.0))
MAPS = {"isotonic": (GateMap("isotonic", (-0.5, 0.3, 0.6), (-1.5, 0.1, 0.7)),), "by step": BY_STEP}


@pytest.mark.parametrize("kind", list(MAPS))
def test_the_gate_is_trained_through_its_maps_beside_ppo_and_by_cloning(kind):
    policy = copy.deepcopy(with_gate_maps(stirred_policy(tiny(action_noise=0.05), seed=1).eval(), MAPS[kind]))
    objective = PPOObjective(policy, PPOSettings(train_gate=True))
    batch, _ = make_batch(drawn_fragments(policy, exits=False), policy, objective.settings, lambda values: values)
    loss, _ = objective._gate_loss(batch)
    window = noise_window(policy.config, 3, 2)
    cloned, _, _ = ExitObjective(policy, "imitation")(window, policy.initial_belief(3))
    for each in (loss, cloned):
        policy.zero_grad()
        each.backward()
        gradients = [parameter.grad for parameter in policy.parameter_groups()["gate"]]
        assert all(torch.isfinite(each).all() and each.abs().sum() > 0 for each in gradients)


@pytest.mark.parametrize("kind", list(MAPS))
@pytest.mark.parametrize("actions", [False, True])
def test_ratios_begin_at_one_and_the_gate_learns_through_its_maps(kind, actions):
    plain = stirred_policy(tiny(action_noise=0.05), seed=1).eval()
    policy = copy.deepcopy(with_gate_maps(plain, MAPS[kind]))
    objective = PPOObjective(policy, PPOSettings(exit_actions=True, train_actions=actions, train_gate=False))
    fragments = drawn_fragments(policy, exits=True)
    assert len({int(steps) for fragment in fragments for steps in fragment.steps}) > 1
    batch, _ = make_batch(fragments, policy, objective.settings, lambda values: values)
    objective.optimizer_groups(cloning=False)
    loss, parts, _ = objective(batch)
    assert parts["kl"].abs().item() < 1e-5
    assert parts["importance_weight"].item() == pytest.approx(1.0, abs=1e-3)
    loss.backward()
    gradients = [parameter.grad for parameter in policy.parameter_groups()["gate"]]
    assert all(torch.isfinite(each).all() and each.abs().sum() > 0 for each in gradients)
