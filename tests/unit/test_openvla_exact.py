"""What an export decides, against the policy that it was made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from avavla_ray.policy.openvla.exchange import open_exportable
from avavla_ray.policy.openvla.prompt import PromptTokenizer
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import PolicyInputs
from jobs import import_openvla
from tests.support.openvla_folder import import_and_load, write_published
from tests.support.policies import some_statistics


def _inputs(policy: AvaVlaPolicy, seed: int) -> PolicyInputs:
    """Two decisions with prompts of different length."""
    config, generator = policy.config, torch.Generator().manual_seed(seed)
    V, S = config.backbone.num_cameras, config.backbone.image_size
    images = torch.randint(0, 256, (2, V, S, S, 3), dtype=torch.uint8, generator=generator)
    text = PromptTokenizer(config.tokenizer, config.backbone).batch(["pick up bowl", "place it"])
    return PolicyInputs(images, text.ids, torch.randn(2, config.proprio_dim, generator=generator))


def _clone(policy: AvaVlaPolicy, steps: int = 5) -> None:
    """Behaviour cloning of noise with a gripper of -1 and +1, two decisions an episode."""
    policy.config = dataclasses.replace(policy.config, gripper="signed")
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(5)
    for step in range(steps):
        belief, loss = policy.initial_belief(2), torch.zeros(())
        for decision in range(2):
            target = torch.rand(2, policy.config.chunk, 7, generator=generator) * 2 - 1
            target[..., -1] = target[..., -1].sign()
            chunk, belief, _ = policy.clone(_inputs(policy, 10 * step + decision), belief, latent_steps=0)
            loss = loss + (chunk - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy.eval()


def _export(checkpoint: Path, output: Path) -> None:
    import_openvla.main(import_openvla.Settings(checkpoint, output, export=True))


def _imported(published: Path, output: Path) -> Checkpoint:
    import_openvla.main(import_openvla.Settings(published, output, adaptive=False))
    return load_checkpoint(output)


def test_a_cloned_plain_policy_is_exported_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "published", oft=True)
    start = _imported(tmp_path / "published", tmp_path / "ours")
    policy, inputs = start.policy, _inputs(start.policy, 99)
    before = policy.decide(inputs, policy.initial_belief(2)).chunk
    _clone(policy)
    with torch.no_grad():  # so that it opens and closes
        gripper = policy.decide(inputs, policy.initial_belief(2)).chunk[..., -1]
        policy.backbone.model.head.fc2.bias[-1] -= gripper.mean()
    save_checkpoint(tmp_path / "bc", policy, some_statistics(), stage="bc", provenance={}, origin=tmp_path / "ours")
    _export(tmp_path / "bc", tmp_path / "back")
    assert "warning" not in capsys.readouterr().out
    cloned, again = load_checkpoint(tmp_path / "bc"), _imported(tmp_path / "back", tmp_path / "again")
    beliefs = [loaded.policy.initial_belief(2) for loaded in (cloned, again)]
    for _ in range(2):
        decided = [
            loaded.policy.decide(inputs, belief) for loaded, belief in zip((cloned, again), beliefs, strict=True)
        ]
        ours, theirs = (each.chunk for each in decided)
        assert (ours - before).abs().max() > 0.1  # cloning moved it
        torch.testing.assert_close(theirs[..., :-1], ours[..., :-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs[..., -1], (1 - ours[..., -1]) / 2, rtol=0, atol=1e-5)
        commands = [
            Agent(loaded.policy, loaded.statistics).actions(chunk)
            for loaded, chunk in ((cloned, ours), (again, theirs))
        ]
        assert set(commands[0][..., -1].flat) == {-1.0, 1.0}
        torch.testing.assert_close(*map(torch.from_numpy, commands), rtol=0, atol=1e-5)
        beliefs = [each.belief for each in decided]


def test_a_cloned_adaptive_policy_is_said_to_be_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_published(tmp_path / "published", oft=True)
    start = import_and_load(tmp_path / "published", tmp_path / "ours")
    assert open_exportable(tmp_path / "ours").changing == []
    policy, statistics = start.policy, some_statistics()
    _clone(policy)
    save_checkpoint(tmp_path / "bc", policy, statistics, stage="import", provenance={}, origin=tmp_path / "ours")
    _export(tmp_path / "bc", tmp_path / "back")
    said = capsys.readouterr().out
    assert "warning: of these action_tokens, attention, conditioning were trained" in said
    assert "--no-adaptive" in said
    inputs, belief = _inputs(policy, 99), policy.initial_belief(2)
    again = import_and_load(tmp_path / "back", tmp_path / "again").policy
    ours, theirs = (each.decide(inputs, belief).chunk[..., :-1] for each in (policy, again))
    assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("attention", "attention.head.bias"),
        ("action_tokens", "action_tokens.initialise.3.weight"),
        ("conditioning", "conditioning.mlp.2.bias"),
    ],
)
def test_each_part_that_is_neutral_no_more_is_named(tmp_path: Path, name: str, layer: str) -> None:
    write_published(tmp_path / "published", oft=True)
    policy = import_and_load(tmp_path / "published", tmp_path / "ours").policy
    with torch.no_grad():
        policy.get_parameter("value_head.layers.0.bias").add_(1)  # which no action depends on
        policy.get_parameter(layer).view(-1)[0] += 0.5
    save_checkpoint(tmp_path / "t", policy, some_statistics(), stage="import", provenance={}, origin=tmp_path / "ours")
    assert open_exportable(tmp_path / "t").changing == [name]


def test_attention_that_prunes_without_training_is_named(tmp_path: Path) -> None:
    write_published(tmp_path / "published", oft=True)
    policy = import_and_load(tmp_path / "published", tmp_path / "ours").policy
    policy.config = dataclasses.replace(
        policy.config, attention=dataclasses.replace(policy.config.attention, keep_ratio=0.5)
    )
    save_checkpoint(tmp_path / "t", policy, some_statistics(), stage="import", provenance={}, origin=tmp_path / "ours")
    assert open_exportable(tmp_path / "t").changing == ["attention"]
