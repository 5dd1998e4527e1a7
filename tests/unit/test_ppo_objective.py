"""The joint loss: what it is at the start of an update, and which parameters each part moves."""

from __future__ import annotations

import math

import pytest
import torch

from actors.batch import look_again, make_batch
from actors.cloning_stream import Demonstration
from actors.objective import PPOObjective
from actors.settings import PPOSettings
from tests.support.drawn_fragments import drawn_fragments
from tests.support.fragments import rollout_fragments
from tests.support.policies import random_inputs, stirred_policy, tiny


def make_objective(**settings) -> tuple[PPOObjective, object]:
    """An objective and a batch that was made under its policy."""
    policy = stirred_policy(tiny()).eval()
    objective = PPOObjective(policy, PPOSettings(**settings))
    batch, _ = make_batch(rollout_fragments(policy), policy, objective.settings, lambda values: values)
    return objective, batch


def moved_parts(objective: PPOObjective) -> set[str]:
    return {
        name
        for name, parameters in objective.policy.parameter_groups().items()
        if any(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in parameters)
    }


def demonstration(objective: PPOObjective, latent_steps: int = 2) -> Demonstration:
    policy = objective.policy
    inputs = random_inputs(policy.config, 2)
    window = {
        "images": inputs.images[:, None], "text": inputs.text[:, None], "proprio": inputs.proprio[:, None],
        "actions": torch.rand(2, 1, 8, 7), "mask": torch.ones(2, 1, 8, dtype=torch.bool),
        "starts": torch.zeros(2, 1, dtype=torch.bool),
    }  # fmt: skip
    return Demonstration(window, policy.initial_belief(2), latent_steps, 0.5)


def test_before_the_first_step_every_ratio_is_one() -> None:
    objective, batch = make_objective(normalise="steps")
    objective.train()
    _, parts, beliefs = objective(batch)
    assert beliefs == {}
    assert parts["kl"].abs().item() < 1e-6
    assert parts["clip_fraction"].item() == 0
    assert parts["importance_weight"].item() == pytest.approx(1.0, abs=1e-4)
    # With ratios of one the surrogate is the mean advantage, which is zero after normalisation.
    assert parts["policy_loss"].abs().item() < 1e-4


def test_ppo_moves_the_update_policy_and_the_critic_only() -> None:
    objective, batch = make_objective()
    objective.optimizer_groups(cloning=False)
    loss, _, _ = objective(batch)
    loss.backward()
    assert moved_parts(objective) == {"reasoner", "value"}


def test_the_gate_loss_moves_the_gate_alone() -> None:
    objective, batch = make_objective()
    for parameter in objective.parameters():
        parameter.requires_grad_(True)
    plain, _, _ = objective(batch)
    with_gate, parts, _ = objective(batch, train_gate=True)
    (with_gate - plain).backward()
    gate = {id(parameter) for parameter in objective.policy.parameter_groups()["gate"]}
    for name, parameter in objective.named_parameters():
        largest = 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        # What both losses contain cancels to rounding.
        assert (largest > 1e-6) == (id(parameter) in gate), name
    assert 0 <= parts["exit_label_mean"] <= 1
    assert with_gate.item() == pytest.approx(plain.item() + parts["gate_loss"].item(), abs=1e-5)


def test_the_gate_learns_its_labels() -> None:
    objective, batch = make_objective(gate_delta=10.0)  # no gain is ever that large: always exit
    gate = objective.policy.parameter_groups()["gate"]
    optimizer = torch.optim.Adam(gate, lr=1e-2)
    first = None
    for _ in range(60):
        loss, parts, _ = objective(batch, train_gate=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or parts["gate_loss"].item()
    assert parts["exit_label_mean"] == 1
    assert parts["gate_loss"].item() < 0.2 * first


def test_cloning_reaches_the_whole_policy_but_critic_and_gate() -> None:
    objective, batch = make_objective()
    objective.optimizer_groups(cloning=True)
    plain, _, _ = objective(batch)
    torch.manual_seed(0)
    loss, parts, beliefs = objective(batch, demonstration(objective))
    assert loss.item() == pytest.approx(plain.item() + 0.5 * parts["cloning_loss"].item(), abs=1e-4)
    assert math.isfinite(parts["cloning_loss"])
    assert not beliefs["demonstration"].hidden.requires_grad
    loss.backward()
    assert moved_parts(objective) == {"backbone", "attention", "action", "encoder", "reasoner", "transition", "value"}


@pytest.mark.parametrize("cloning", [False, True])
@pytest.mark.parametrize("train_gate", [False, True])
def test_optimizer_groups_own_exactly_what_requires_a_gradient(cloning: bool, train_gate: bool) -> None:
    objective, _ = make_objective(train_gate=train_gate, policy_lr=1e-5, critic_lr=2e-5, gate_lr=3e-5)
    groups = objective.optimizer_groups(cloning=cloning)
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(owned) == len(set(owned))
    assert {id(parameter) for parameter in objective.parameters() if parameter.requires_grad} == set(owned)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"policy": 1e-5, "critic": 2e-5, **({"gate": 3e-5} if train_gate else {})}


def test_once_the_policy_has_moved_enough_only_critic_and_gate_go_on() -> None:
    objective, batch = make_objective(train_gate=True)
    objective.optimizer_groups(cloning=True)
    full, parts, _ = objective(batch)
    loss, remaining, beliefs = objective(batch, demonstration(objective), train_policy=False, train_gate=True)
    assert beliefs == {}
    assert set(remaining) == {"value_loss", "gate_loss", "exit_label_mean"}
    assert remaining["value_loss"].item() == pytest.approx(parts["value_loss"].item())
    assert math.isfinite(full.item())
    loss.backward()
    assert moved_parts(objective) == {"value", "gate"}


def drawing_objective(**settings) -> tuple[PPOObjective, object]:
    """One that trains drawn chunks and exits, and a batch of them."""
    policy = stirred_policy(tiny(action_noise=0.3)).eval()
    objective = PPOObjective(policy, PPOSettings(train_actions=True, exit_actions=True, **settings))
    batch, _ = make_batch(drawn_fragments(policy, exits=True), policy, objective.settings, lambda values: values)
    return objective, batch


@pytest.mark.parametrize("learned", [False, True])
def test_drawn_chunks_and_exits_move_all_that_had_a_part_in_them(learned: bool) -> None:
    objective, batch = drawing_objective(learn_action_std=learned)
    groups = objective.optimizer_groups(cloning=False)
    assert [group["name"] for group in groups] == ["policy", "critic", "gate"]
    loss, parts, _ = objective(batch)
    assert parts["kl"].abs().item() < 1e-5
    assert parts["action_clip_fraction"].item() == 0
    loss.backward()
    everything = {"backbone", "attention", "action", "encoder", "reasoner", "transition", "value", "gate"}
    assert moved_parts(objective) == everything | ({"noise"} if learned else set())


def test_chunks_that_did_well_become_likelier() -> None:
    objective, batch = drawing_objective(latent_coefficient=0.0, value_coefficient=0.0)
    groups = objective.optimizer_groups(cloning=False)
    optimizer = torch.optim.Adam(groups[0]["params"], lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        objective(batch)[0].backward()
        optimizer.step()
    with torch.no_grad():
        change = look_again(objective.policy, batch, objective.settings).likelihoods.action - batch.proximal.action
    advantage = batch.advantages.gather(1, batch.steps[:, None]).expand_as(change)
    gained = (change * advantage)[batch.executed]
    assert gained.mean() > 0
    assert (gained > 0).float().mean() > 0.6


def test_a_value_that_has_gone_far_learns_no_further() -> None:
    objective, batch = make_objective(value_clip=0.01)
    objective.optimizer_groups(cloning=False)
    _, parts, _ = objective(batch)
    with torch.no_grad():
        objective.policy.value_head.layers[-1].bias.add_(5.0)  # above every return, and above the old values
    loss, _, _ = objective(batch, train_policy=False)
    free = PPOObjective(objective.policy, PPOSettings())(batch, train_policy=False)[0]
    assert loss.item() == pytest.approx(free.item())  # the larger of the two squares is that of the values
    assert parts["value_loss"].item() < 2 * loss.item()


@pytest.mark.parametrize("train_gate", [False, True])
def test_whole_leaves_no_learning_parameter_without_a_gradient(train_gate: bool) -> None:
    """DeepSpeed steps one that has none with an old gradient, under ZeRO 3 and with an optimizer on the CPU."""
    objective, batch = make_objective(train_gate=True)
    objective.optimizer_groups(cloning=True)
    alone, _, _ = objective(batch, train_policy=False, train_gate=train_gate)
    loss, parts, beliefs = objective(
        batch, demonstration(objective), train_policy=False, train_gate=train_gate, whole=True
    )  # fmt: skip
    assert beliefs == {}
    assert set(parts) == {"value_loss", *(("gate_loss", "exit_label_mean") if train_gate else ())}
    assert loss.item() == pytest.approx(alone.item(), abs=1e-6)
    loss.backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)
    assert moved_parts(objective) == {"value", *(("gate",) if train_gate else ())}
