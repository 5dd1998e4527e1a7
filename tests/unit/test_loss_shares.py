"""What a step learns does not depend on how its streams are split into workers and accumulated batches."""

from __future__ import annotations

import pytest
import torch

from avavla_ray.policy.types import Belief
from avavla_ray.training.exit_objective import ExitObjective
from avavla_ray.training.objective import CloningObjective, learning_parameters
from avavla_ray.training.stages import PARTS
from tests.support.cloning_batches import noise_window, rows_of
from tests.support.policies import random_belief, stirred_policy, tiny

STREAMS, DECISIONS, DEPTH = 8, 2, 2
SPLITS = {
    "two workers": [range(0, 8, 2), range(1, 8, 2)],
    "three uneven workers": [range(rank, 8, 3) for rank in range(3)],
    "two workers, uneven micro-batches": [[0], [2, 4, 6], [1, 3], [5, 7]],
    "a stream each": [[stream] for stream in range(8)],
}
STAGES = {
    "cloning": lambda policy, **shares: CloningObjective(policy, **shares),
    "latent_warm_up": lambda policy, **shares: CloningObjective(policy, 0.5, **shares),
    "value": lambda policy, **shares: ExitObjective(policy, "value", 0.01, **shares),
    "imitation": lambda policy, **shares: ExitObjective(policy, "imitation", 0.001, **shares),
}


def outcome(stage, policy, learning, parts):
    """Loss, shared metrics, belief after it and gradients of a step whose streams are split into `parts`, as an engine
    averages them."""
    window, belief = noise_window(policy.config, STREAMS, DECISIONS), random_belief(policy, STREAMS)
    noise = torch.randn(STREAMS, DECISIONS, DEPTH, policy.config.latent.update_dim, generator=torch.manual_seed(5))
    objective = STAGES[stage](policy, replicas=len(parts), streams=STREAMS)
    total, sums, after = torch.zeros(()), {}, [torch.empty_like(part) for part in belief]
    policy.zero_grad()
    for rows in map(list, parts):
        options = {"latent_steps": DEPTH, "noise": noise[rows]} if stage == "latent_warm_up" else {}
        loss, left, metrics = objective(rows_of(window, rows), Belief(*(part[rows] for part in belief)), **options)
        (loss / len(parts)).backward()
        total += loss.detach() / len(parts)
        for name in objective.SHARED_METRICS & metrics.keys():
            sums[name] = sums.get(name, 0) + metrics[name] / len(parts)
        for part, value in zip(after, left, strict=True):
            part[rows] = value
    return total, sums, after, [parameter.grad.clone() for parameter in learning]


@pytest.mark.parametrize("stage", STAGES)
def test_loss_gradient_and_belief_are_the_same_however_the_streams_are_split(stage):
    policy = stirred_policy(tiny())
    learning = learning_parameters(policy, PARTS[stage if stage in PARTS else "exit_calibration"])
    loss, metrics, belief, gradients = outcome(stage, policy, learning, [range(STREAMS)])
    assert loss > 0
    assert all(gradient.any() for gradient in gradients)
    for name, parts in SPLITS.items():
        found = outcome(stage, policy, learning, parts)
        torch.testing.assert_close(found[0], loss, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(found[1], metrics, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[2], belief, rtol=1e-4, atol=1e-5)
        largest = max(float(gradient.abs().max()) for gradient in gradients)
        torch.testing.assert_close(found[3], gradients, rtol=1e-4, atol=1e-5 * largest)


def test_the_metrics_name_what_is_shared():
    policy = stirred_policy(tiny())
    window, belief = noise_window(policy.config, 2, 1), policy.initial_belief(2)
    for stage, objective in STAGES.items():
        loss, _, metrics = (made := objective(policy))(
            window, belief, **({"latent_steps": 1} if stage == "latent_warm_up" else {})
        )
        shared = made.SHARED_METRICS if stage != "cloning" else {"l1"}
        assert shared <= metrics.keys()
        assert all(metrics[name].ndim == 0 and not metrics[name].requires_grad for name in shared)
        assert loss.requires_grad


def test_without_counts_a_batch_is_averaged_on_its_own():
    policy = stirred_policy(tiny())
    window = noise_window(policy.config, 4, 2)
    whole, _, _ = CloningObjective(policy)(window, policy.initial_belief(4))
    del window["counts"]
    alone, _, _ = CloningObjective(policy, replicas=7)(window, policy.initial_belief(4))
    torch.testing.assert_close(alone, whole)
