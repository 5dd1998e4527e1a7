"""Exit calibration on collected decisions: who is held out, what the labels are, and that the gate alone learns."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avavla_ray.demonstrations.collection import Attempt
from avavla_ray.errors import InputError
from avavla_ray.training.gate_decisions import DecisionFolder, PlayedEpisode, Start
from avavla_ray.training.gate_training import (
    ROLES,
    TRAINING,
    VALIDATION,
    GateSettings,
    gate_data,
    gate_logits,
    split_roles,
    train_gate,
)
from tests.support.policies import stirred_policy, tiny

K, T = 5, 40
SETTINGS = GateSettings(delta=0.0, steps=200, batch=16, learning_rate=5e-3, checks=8)


@pytest.fixture(scope="module")
def policy():
    """Its values differ much, and its gate knows nothing of them."""
    made = stirred_policy(tiny(latent__max_steps=K), seed=2).eval()
    with torch.no_grad():
        for parameter in made.value_head.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def played(policy):
    """Decisions whose states drift by where they are, so that a gate may learn where to."""
    random = np.random.default_rng(0)
    width = policy.config.latent.width
    turn = np.linalg.qr(random.normal(size=(width, width)))[0]
    episodes = []
    for task in (4, 7):
        for number in range(8):
            start = random.normal(size=(T, 1, width))
            states = start + start @ turn * np.linspace(0, 0.5, K + 1)[:, None]
            episodes.append(
                PlayedEpisode(Start(task, number), states.astype(np.float32), np.full(T, K), number % 2 == 0, 48)
            )
    return episodes


def test_every_task_is_held_out_alike_and_every_episode_has_one_role():
    tasks = [0] * 20 + [3] * 20 + [5] * 3 + [9] * 2
    roles = split_roles(tasks, 0.15, seed=0)
    for task, expected in ((0, (14, 3, 3)), (3, (14, 3, 3)), (5, (1, 1, 1)), (9, (2, 0, 0))):
        mine = [role for role, own in zip(roles, tasks, strict=True) if own == task]
        assert tuple(mine.count(role) for role in ROLES) == expected
    assert roles == split_roles(tasks, 0.15, seed=0)
    assert roles != split_roles(tasks, 0.15, seed=1)
    assert split_roles([0] * 5, 0.49, seed=0).count(TRAINING) == 1
    with pytest.raises(InputError, match="4 episodes were played to the end, less than 3 of any task"):
        split_roles([0, 0, 1, 1], 0.15, seed=0)


@torch.no_grad()
def test_labels_are_those_of_the_value_head(policy, played):
    data = gate_data(policy, played, SETTINGS)
    roles = split_roles([each.start.task for each in played], SETTINGS.held_out, SETTINGS.seed)
    for role in ROLES:
        row = 0
        for episode, own in zip(played, roles, strict=True):
            if own != role:
                continue
            for states in episode.states:
                values = [float(policy.value(torch.from_numpy(z))) for z in states]
                for k in range(1, K):
                    gain = values[min(k + 3, K)] - values[k]
                    assert float(data[role].gains[row, k - 1]) == pytest.approx(gain, abs=1e-5)
                    assert bool(data[role].labels[row, k - 1]) == (float(data[role].gains[row, k - 1]) < 0.0)
                    assert torch.equal(data[role].states[row, k - 1], torch.from_numpy(states[k]))
                assert bool(data[role].success[row]) == episode.success
                row += 1
        assert row == len(data[role])
        assert data[role].episodes == roles.count(role)


def test_the_gate_learns_and_nothing_else_moves(policy, played):
    made, told = copy.deepcopy(policy), []
    data = gate_data(made, played, SETTINGS)
    before = copy.deepcopy(made.state_dict())
    points, kept = train_gate(made, data, SETTINGS, told=lambda numbers, step: told.append((step, numbers)))
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("loop.exit_gate.")}
    assert all(parameter.grad is None for parameter in made.value_head.parameters())
    assert [step for step, _ in told] == [point["step"] for point in points[1:]] == list(range(25, 201, 25))
    losses = {point["step"]: point["validation/loss"] for point in points}
    assert losses[kept] == min(losses.values()) < losses[0] - 0.05
    logits = gate_logits(made, data[VALIDATION].states)
    assert float(F.binary_cross_entropy_with_logits(logits, data[VALIDATION].labels)) == pytest.approx(losses[kept])
    assert points[-1]["training/loss"] < points[1]["training/loss"]


def test_the_last_gate_is_kept_when_that_is_asked_for_and_training_repeats_itself(policy, played):
    def trained(**changes):
        made = copy.deepcopy(policy)
        settings = GateSettings(**{**SETTINGS.__dict__, **changes})
        points, kept = train_gate(made, gate_data(made, played, settings), settings)
        return made.loop.exit_gate.state_dict(), points, kept

    last, points, kept = trained(keep="last", steps=205)
    assert kept == points[-1]["step"] == 205
    again, _, _ = trained(keep="last", steps=205)
    assert all(torch.equal(last[name], again[name]) for name in last)
    other, _, _ = trained(keep="last", steps=205, seed=1)
    assert any(not torch.equal(last[name], other[name]) for name in last)


def test_a_gate_that_only_becomes_worse_is_left_as_it_was(policy, played):
    made = copy.deepcopy(policy)
    data = gate_data(made, played, SETTINGS)
    train_gate(made, data, SETTINGS)
    good = copy.deepcopy(made.loop.exit_gate.state_dict())
    data[TRAINING] = replace(data[TRAINING], labels=1 - data[TRAINING].labels)
    points, kept = train_gate(made, data, SETTINGS)
    assert kept == 0
    assert points[-1]["validation/loss"] > points[0]["validation/loss"]
    assert all(torch.equal(value, good[name]) for name, value in made.loop.exit_gate.state_dict().items())


def test_played_episodes_are_kept_whole(played, tmp_path):
    folder = DecisionFolder(tmp_path / "decisions")
    assert played[0].start not in folder
    folder.add(played[0])
    assert played[0].start in folder
    loaded = folder.load(played[0].start)
    np.testing.assert_array_equal(loaded.states, played[0].states)
    np.testing.assert_array_equal(loaded.latent_steps, played[0].latent_steps)
    assert (loaded.start, loaded.success, loaded.steps) == (played[0].start, True, 48)
    (path,) = (tmp_path / "decisions").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=rf"{path.name} cannot be read .*remove it, --resume plays it again"):
        folder.load(played[0].start)


def test_starts_are_drawn_apart():
    starts = [Start(task, number) for task in range(10) for number in range(50)]
    seeds = {start.seed(run) for start in starts for run in (0, 1)}
    assert len(seeds) == 2 * len(starts)
    cloned = {Attempt(*start).seed(run) for start in starts for run in (0, 1)}
    assert not seeds & cloned
    assert Start(3, 4).seed(0) == Start(3, 4).seed(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch 0 is too small"),
        ({"learning_rate": 0.0}, "learning rate 0.0 is not positive"),
        ({"delta": float("nan")}, "delta nan"),
        ({"keep": "bset"}, "did you mean 'best'"),
        ({"held_out": 0.5}, "leaves nothing to learn from"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        GateSettings(**changes)
