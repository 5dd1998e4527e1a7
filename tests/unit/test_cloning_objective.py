"""The cloning loss against a slow reading of its definition, and where its gradient goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.windows import WindowSettings, WindowWalk
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.training.objective import (
    CLONING_PARTS,
    WARM_UP_PARTS,
    CloningObjective,
    learning_parameters,
    to_tensors,
)
from avavla_ray.training.validation import dimension_names, held_out_errors
from tests.support.demonstration_data import make_dataset


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> EpisodeReader:
    return EpisodeReader(read_metadata(make_dataset(tmp_path_factory.mktemp("objective") / "demos", episodes=5)))


@pytest.fixture
def policy() -> AvaVlaPolicy:
    torch.manual_seed(0)
    return AvaVlaPolicy(preset("tiny"))


def encode(text: str) -> np.ndarray:
    config = preset("tiny")
    return make_tokenizer(config).encode(text).numpy()


def window(reader: EpisodeReader, decisions: int, streams: int = 3) -> dict[str, torch.Tensor]:
    walk = WindowWalk(Mixture((reader.metadata,)), encode, WindowSettings(streams=streams, decisions=decisions))
    return to_tensors(walk.next())


def test_the_loss_is_what_it_says(reader, policy):
    batch = window(reader, decisions=5)
    assert batch["starts"].sum() > 3, "some stream must begin an episode inside the window"
    assert not batch["mask"].all()
    loss, belief, metrics = CloningObjective(policy)(batch, policy.initial_belief(3))
    losses, beliefs = [], policy.initial_belief(3)
    for t in range(5):
        errors, after = [], []
        for stream in range(3):
            mine = Belief(*(part[stream : stream + 1] for part in beliefs))
            if batch["starts"][stream, t]:
                mine = policy.initial_belief(1)
            inputs = PolicyInputs(*(batch[name][stream : stream + 1, t] for name in ("images", "text", "proprio")))
            chunk, mine, _ = policy.clone(inputs, mine, latent_steps=0)
            after.append(mine)
            errors += [
                (chunk[0, c] - batch["actions"][stream, t, c]).abs() for c in range(8) if batch["mask"][stream, t, c]
            ]
        losses.append(torch.stack(errors).mean())
        beliefs = Belief(*(torch.cat(parts) for parts in zip(*after, strict=True)))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    for found, expected in zip(belief, beliefs, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)
        assert not found.requires_grad
    assert int(metrics["error_count"]) == int(batch["mask"].sum())


def test_no_gradient_crosses_the_decision_boundary(reader, policy):
    batch = window(reader, decisions=2)
    objective = CloningObjective(policy)
    learning = learning_parameters(policy, CLONING_PARTS)
    loss, _, _ = objective(batch, policy.initial_belief(3))
    together = torch.autograd.grad(loss, learning, allow_unused=True)
    belief, apart = policy.initial_belief(3), []
    for t in range(2):
        loss, belief, _ = objective({name: part[:, t : t + 1] for name, part in batch.items()}, belief)
        apart.append(torch.autograd.grad(loss / 2, learning, allow_unused=True))
    for whole, first, second in zip(together, *apart, strict=True):
        if whole is not None:
            torch.testing.assert_close(whole, first + second, rtol=1e-3, atol=1e-5)


def test_each_stage_trains_its_parts_only(reader, policy):
    batch, objective = window(reader, decisions=2), CloningObjective(policy, smoothness=0.5)
    for parts, depth in ((CLONING_PARTS, 0), (WARM_UP_PARTS, 3)):
        learning = {id(p) for p in learning_parameters(policy, parts)}
        policy.zero_grad()
        loss, _, metrics = objective(batch, policy.initial_belief(3), latent_steps=depth, sample=depth > 0)
        loss.backward()
        moved = {name: any(p.grad is not None and p.grad.any() for p in group) for name, group in
                 policy.parameter_groups().items()}  # fmt: skip
        assert {name for name, has in moved.items() if has} == set(parts)
        assert all((p.grad is not None) <= (id(p) in learning) for p in policy.parameters())
        assert ("smoothness" in metrics) == (depth > 0)
    torch.testing.assert_close(loss, metrics["l1"] + 0.5 * metrics["smoothness"])


def test_held_out_errors_are_those_of_each_decision_alone(reader, policy):
    objective = CloningObjective(policy.eval())
    errors = held_out_errors(objective, reader, encode, [0, 2], latent_steps=2)
    total, count = np.zeros(7), 0
    statistics = reader.metadata.statistics
    for index in (0, 2):
        proprio, actions = reader.numbers(index)
        belief = policy.initial_belief(1)
        for step in range(0, len(actions), 8):
            inputs = PolicyInputs(
                torch.from_numpy(reader.images(index, [step])),
                torch.from_numpy(encode(reader.metadata.episodes[index].instruction))[None],
                torch.from_numpy(statistics.proprio.normalise(proprio[step]))[None],
            )
            decision = policy.decide(inputs, belief, depth=2)
            belief = decision.belief
            coming = statistics.action.normalise(actions[step : step + 8])
            total += np.abs(decision.chunk[0, : len(coming)].numpy() - coming).sum(0)
            count += len(coming)
    np.testing.assert_allclose(errors, total / count, rtol=1e-4, atol=1e-5)
    assert dimension_names(errors)[-1] == "gripper"
