"""The cloning loss against a slow reading of its definition, and where its gradient goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.dimensions import dimension_names
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.training.exit_objective import ExitObjective
from avavla_ray.training.objective import CloningObjective, learning_parameters
from avavla_ray.training.settings import CALIBRATION, CLONING, WARM_UP
from avavla_ray.training.stages import PARTS
from avavla_ray.training.validation import held_out_errors
from tests.support.cloning_batches import noise_window
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


def test_the_loss_is_what_it_says(policy):
    batch = noise_window(policy.config, streams=3, decisions=5)
    assert 3 < batch["starts"].sum() < 15
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


def test_no_gradient_crosses_the_decision_boundary(policy):
    batch = noise_window(policy.config, streams=3, decisions=2)
    batch["starts"][:] = torch.tensor([True, False])
    objective = CloningObjective(policy)
    learning = learning_parameters(policy, PARTS[CLONING])
    loss, _, _ = objective(batch, policy.initial_belief(3))
    together = torch.autograd.grad(loss, learning, allow_unused=True)
    belief, apart = policy.initial_belief(3), []
    for t in range(2):
        loss, belief, _ = objective(
            {name: part[t : t + 1] if name == "counts" else part[:, t : t + 1] for name, part in batch.items()}, belief
        )
        apart.append(torch.autograd.grad(loss / 2, learning, allow_unused=True))
    for whole, first, second in zip(together, *apart, strict=True):
        if whole is not None:
            torch.testing.assert_close(whole, first + second, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", PARTS)
def test_each_stage_moves_its_parts_only(policy, kind):
    batch, belief = noise_window(policy.config, streams=3, decisions=2), policy.initial_belief(3)
    learning = learning_parameters(policy, PARTS[kind])
    owned = {id(parameter) for parameter in learning}
    assert owned == {id(parameter) for part in PARTS[kind] for parameter in policy.parameter_groups()[part]}
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for _ in range(3):  # what begins at zero hides other parameters from the first gradients
        optimizer.zero_grad()
        if kind == CALIBRATION:
            loss, _, _ = ExitObjective(policy, "imitation", delta=1.0)(batch, belief)
        else:
            loss, _, _ = CloningObjective(policy)(batch, belief, latent_steps=3 if kind == WARM_UP else 0)
        loss.backward()
        optimizer.step()
    for part, parameters in policy.parameter_groups().items():
        for parameter in parameters:
            name = names[id(parameter)]
            assert parameter.grad is None or part in PARTS[kind], name
            assert torch.equal(parameter, before[name]) or part in PARTS[kind], name
    for part in PARTS[kind]:
        moved = [not torch.equal(p, before[names[id(p)]]) for p in policy.parameter_groups()[part]]
        assert any(moved), part


def test_noise_spreads_the_updates_and_smoothness_is_added(policy):
    batch, belief = noise_window(policy.config, streams=3, decisions=2), policy.initial_belief(3)
    objective = CloningObjective(policy, smoothness=0.5)
    noise = torch.randn(3, 2, 4, policy.config.latent.update_dim, generator=torch.manual_seed(1))
    loss, _, metrics = objective(batch, belief, latent_steps=3, noise=noise)
    torch.testing.assert_close(loss, metrics["l1"] + 0.5 * metrics["smoothness"])
    assert torch.equal(objective(batch, belief, latent_steps=3, noise=noise[:, :, :3])[0], loss)
    means, _, _ = objective(batch, belief, latent_steps=3)
    torch.testing.assert_close(objective(batch, belief, latent_steps=3, noise=0 * noise)[0], means)
    assert (means - loss).abs() > 1e-4
    assert "smoothness" not in objective(batch, belief)[2]


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
    assert dimension_names(len(errors))[-1] == "gripper"
