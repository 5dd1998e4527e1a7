"""What behaviour cloning starts from: an OpenVLA import whose gripper counts openness."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import LoraConfig, PolicyConfig, preset
from avavla_ray.policy.openvla.gripper import (
    closing_of,
    open_fraction_statistics,
    open_fraction_weights,
    signed_weights,
)
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.cloning_start import check_start, start_policy
from tests.support.openvla_policies import chunk_of, openvla_inputs, openvla_policy
from tests.support.policies import some_statistics, stirred_policy

DATA = ("libero_object",)


def started(folder: Path, config: PolicyConfig, demonstrated: Sequence[str] = DATA) -> AvaVlaPolicy:
    """The policy of `config` as training would start it from a checkpoint."""
    check_start(folder, config, demonstrated)
    policy = start_policy(config, seed=0, initial=folder, demonstrated=demonstrated).eval()
    assert policy.config == config
    return policy


def save(folder: Path, policy: AvaVlaPolicy, statistics: Statistics | dict[str, Statistics]) -> Path:
    save_checkpoint(folder, policy, statistics, stage="import", provenance={})
    return folder


def normalised(statistics: Statistics) -> Statistics:
    mask = np.ones_like(statistics.action.mask)
    return dataclasses.replace(statistics, action=dataclasses.replace(statistics.action, mask=mask))


@pytest.mark.parametrize(("lora", "data", "closes"), [
    (None, "libero_object", 1), (LoraConfig(rank=4), "libero_object", 1), (None, "calvin_abc", -1),
])  # fmt: skip
def test_cloning_from_an_import_starts_with_the_same_openings(
    lora: LoraConfig | None, data: str, closes: int, tmp_path: Path
) -> None:
    imported, statistics = openvla_policy(), dataclasses.replace(some_statistics(), name=data)
    inputs = openvla_inputs(imported.config, 4)
    with torch.no_grad():  # so that it opens and closes, around 0.5
        imported.backbone.model.head.fc2.bias[-1] += 0.5 - chunk_of(imported, inputs)[..., -1].mean()
    # A data set whose gripper is normalised says nothing about the others.
    folder = save(tmp_path / "start", imported, {"own": statistics, "scaled": normalised(statistics)})
    config = dataclasses.replace(imported.config, gripper="signed", lora=lora)
    policy = started(folder, config, [data])
    before, after = chunk_of(imported, inputs), chunk_of(policy, inputs)
    torch.testing.assert_close(after[..., :-1], before[..., :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[..., -1], closes * (1 - 2 * before[..., -1]), rtol=0, atol=1e-5)
    expected, found = (Agent(each, statistics).actions(chunk) for each, chunk in ((imported, before), (policy, after)))
    assert set(expected[..., -1].flat) == {-1.0, 1.0}
    np.testing.assert_array_equal(found[..., -1], expected[..., -1])
    opened = before[..., -1].numpy() >= 0.5
    np.testing.assert_array_equal(found[..., -1] == closes, ~opened)


def test_a_start_in_the_same_units_stays_as_it_is(tmp_path: Path) -> None:
    start = openvla_policy()
    start.config = dataclasses.replace(start.config, gripper="signed")
    weights = started(save(tmp_path / "start", start, some_statistics()), start.config).state_dict()
    for name, tensor in start.state_dict().items():
        assert torch.equal(weights[name], tensor), name


def test_what_cannot_be_turned_is_refused(tmp_path: Path) -> None:
    words = stirred_policy(preset("openvla_tiny"))
    config = dataclasses.replace(words.config, gripper="signed")
    with pytest.raises(InputError, match="no L1 head.*--parallel"):
        check_start(save(tmp_path / "words", words, some_statistics()), config, DATA)
    policy = openvla_policy()
    config = dataclasses.replace(policy.config, gripper="signed")
    with pytest.raises(InputError, match="normalises the gripper"):
        check_start(save(tmp_path / "scaled", policy, normalised(some_statistics())), config, DATA)
    policy.config = config
    with pytest.raises(InputError, match="another configuration"):  # no data set of ours counts openness
        check_start(save(tmp_path / "signed", policy, some_statistics()), openvla_policy().config, DATA)


@pytest.mark.parametrize("closing", [1, -1])
def test_turning_there_and_back_changes_nothing(closing: int) -> None:
    for name, tensor in openvla_policy().backbone.model.state_dict().items():
        again = open_fraction_weights(name, signed_weights(name, tensor, closing), closing)
        torch.testing.assert_close(again, tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("closing", [1, -1])
def test_statistics_are_those_of_the_turned_commands(closing: int) -> None:
    commands = np.array([-1.0, 1.0, 1.0, 1.0])  # of the gripper
    each = some_statistics()
    field = {name: getattr(each.action, name).copy() for name in ("q01", "q99", "minimum", "maximum", "mean", "std")}
    for name, value in zip(field, (-1.0, 1.0, -1.0, 1.0, commands.mean(), commands.std()), strict=True):
        field[name][-1] = value
    mask = each.action.mask.copy()
    mask[-1] = False
    name = "libero_object" if closing > 0 else "calvin_d"
    turned = open_fraction_statistics({name: dataclasses.replace(each, name=name, action=dataclasses.replace(
        each.action, mask=mask, **field
    ))})[name].action  # fmt: skip
    fractions = (1 - closing * commands) / 2
    assert [turned.minimum[-1], turned.maximum[-1], turned.q01[-1], turned.q99[-1]] == [0, 1, 0, 1]
    assert turned.mean[-1] == pytest.approx(fractions.mean())
    assert turned.std[-1] == pytest.approx(fractions.std())


def test_data_sets_that_close_with_opposite_commands_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"libero_goal closes the gripper with \+1 and calvin_d with -1"):
        closing_of(["calvin_d", "libero_goal"])
