"""Exit calibration against a slow reading of its definition, and where its gradient goes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avavla_ray.errors import InputError
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.training.exit_objective import DELTAS, ExitObjective
from avavla_ray.training.objective import learning_parameters
from avavla_ray.training.stages import PARTS
from tests.support.cloning_batches import noise_window
from tests.support.policies import random_belief, stirred_policy, tiny

STREAMS, K = 5, 5
THRESHOLD = 0.5


@pytest.fixture
def policy() -> AvaVlaPolicy:
    """One whose gate stops some samples and not others."""
    return stirred_policy(tiny(latent__max_steps=K, latent__exit_threshold=THRESHOLD), seed=8)


@torch.no_grad()
def by_hand(policy, window, belief, worth, lookahead):
    """Gains of thinking on and gate logits (B, K) of a window's first decision: stream by stream, depth by depth."""
    gains, logits = torch.zeros(STREAMS, K), torch.zeros(STREAMS, K)
    for stream in range(STREAMS):
        here = Belief(*(part[stream : stream + 1] for part in belief))
        if window["starts"][stream, 0]:
            here = policy.initial_belief(1)
        inputs = PolicyInputs(*(window[name][stream : stream + 1, 0] for name in ("images", "text", "proprio")))
        worths = []
        for depth in range(K + 1):
            chunk, _, z = policy.clone(inputs, here, latent_steps=depth)
            worths.append(worth(stream, chunk[0], z[:, -1]))
            if depth:
                logits[stream, depth - 1] = policy.gate_logit(z[0, -1])
        for depth in range(1, K + 1):
            gains[stream, depth - 1] = worths[min(depth + lookahead, K)] - worths[depth]
    return gains, logits


@pytest.mark.parametrize("lookahead", [1, 3])
@pytest.mark.parametrize("target", ["value", "imitation"])
def test_labels_loss_and_metrics_are_what_they_say(policy, target, lookahead):
    window = noise_window(policy.config, STREAMS, 1)
    belief = random_belief(policy, STREAMS)

    def worth(stream, chunk, z):
        if target == "value":
            return float(policy.value(z)[0])
        wrong = [
            float(abs(chunk[c, a] - window["actions"][stream, 0, c, a]))
            for c in range(8) if window["mask"][stream, 0, c] for a in range(7)
        ]  # fmt: skip
        return -sum(wrong) / len(wrong)

    gains, logits = by_hand(policy, window, belief, worth, lookahead)
    # Between two gains near the middle, so that both labels occur and rounding decides none.
    ordered = gains[gains != 0].sort().values
    first = len(ordered) // 4
    widest = first + int(ordered[first : 3 * len(ordered) // 4].diff().argmax())
    delta = float(ordered[widest : widest + 2].mean())
    labels, said, depths, losses = [], [], [], []
    for stream in range(STREAMS):
        for depth in range(K - 1):  # after the last step nobody is asked
            labels.append(float(gains[stream, depth] < delta))
            said.append(bool(torch.sigmoid(logits[stream, depth]) > THRESHOLD))
            losses.append(F.binary_cross_entropy_with_logits(logits[stream, depth], torch.tensor(labels[-1])))
        depths.append(next((depth for depth, word in enumerate(said[1 - K :], start=1) if word), K))
    assert 0 < sum(labels) < len(labels)
    assert len(set(depths)) > 1
    loss, _, metrics = ExitObjective(policy, target, delta, lookahead)(window, belief)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    assert float(metrics["exit_share"]) == pytest.approx(sum(labels) / len(labels))
    agreeing = sum(word == bool(label) for word, label in zip(said, labels, strict=True))
    assert float(metrics["accuracy"]) == pytest.approx(agreeing / len(labels))
    assert float(metrics["mean_depth"]) == pytest.approx(sum(depths) / STREAMS)


@pytest.mark.parametrize("target", ["value", "imitation"])
def test_the_belief_is_that_of_the_decisions_the_policy_would_take(policy, target):
    window, belief = noise_window(policy.config, STREAMS, 3), random_belief(policy, STREAMS)
    _, after, metrics = ExitObjective(policy, target)(window, belief)
    steps = 0
    for t in range(3):
        belief = Belief(*(
            torch.where(window["starts"][:, t].view(-1, *[1] * (part.ndim - 1)), torch.zeros_like(part), part)
            for part in belief
        ))  # fmt: skip
        inputs = PolicyInputs(window["images"][:, t], window["text"][:, t], window["proprio"][:, t])
        decision = policy.decide(inputs, belief)
        belief, steps = decision.belief, steps + int(decision.trace.steps.sum())
    assert float(metrics["mean_depth"]) == pytest.approx(steps / (3 * STREAMS))
    for found, expected in zip(after, belief, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not found.requires_grad


@pytest.mark.parametrize("target", ["value", "imitation"])
def test_the_gate_alone_gets_a_gradient_even_where_nothing_is_frozen(policy, target):
    policy.requires_grad_(True)
    loss, _, _ = ExitObjective(policy, target)(noise_window(policy.config, STREAMS, 2), policy.initial_belief(STREAMS))
    loss.backward()
    gate = {id(parameter) for parameter in policy.parameter_groups()["gate"]}
    assert all((parameter.grad is not None) == (id(parameter) in gate) for parameter in policy.parameters())


def test_the_gate_learns_the_labels():
    policy = stirred_policy(tiny())
    learning = learning_parameters(policy, PARTS["exit_calibration"])
    window, belief = noise_window(policy.config, 4, 1), policy.initial_belief(4)
    objective, optimizer = ExitObjective(policy, "value", 0.0), torch.optim.Adam(learning, lr=3e-2)
    accuracies = []
    for _ in range(30):
        loss, _, metrics = objective(window, belief)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracies.append(float(metrics["accuracy"]))
    share = float(metrics["exit_share"])
    assert 0.1 < share < 0.9, "a constant answer must not do"
    assert accuracies[-1] > max(share, 1 - share, accuracies[0])


def test_dropout_does_not_reach_the_labels():
    policy = stirred_policy(tiny(backbone__dropout=0.5))
    objective = ExitObjective(policy, "imitation")
    objective.train()
    assert not policy.training
    window, belief = noise_window(policy.config, 2, 1), policy.initial_belief(2)
    assert objective(window, belief)[0] == objective(window, belief)[0]


def test_a_target_without_sense_is_refused(policy):
    assert [ExitObjective(policy, target).delta for target in ("value", "imitation")] == list(DELTAS.values())
    with pytest.raises(InputError, match="unknown exit target 'reward'"):
        ExitObjective(policy, "reward")
    flat = stirred_policy(tiny(latent__enabled=False))
    with pytest.raises(InputError, match="no latent loop"):
        ExitObjective(flat, "imitation")(noise_window(flat.config, 2, 1), flat.initial_belief(2))
