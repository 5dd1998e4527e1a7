"""The policy that behaviour cloning starts from: fresh weights, or those of a checkpoint, turned into what is trained.

Every worker makes it for itself, from files that all of them can read: nothing of a model's size passes through the
driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from avavla_ray.errors import InputError
from avavla_ray.normalisation import FILE_NAME, Statistics, read_statistics
from avavla_ray.policy.checkpoint import load_checkpoint, read_config
from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.folder import CheckpointFolder, open_folder
from avavla_ray.policy.policy import AvaVlaPolicy


def check_start(
    initial: str | Path, policy: PolicyConfig, demonstrated: Iterable[str]
) -> CheckpointFolder:  # fmt: skip
    """Whether training of `policy` can start from a checkpoint, whose files are verified. Loads no weights.

    Raises:
        InputError: it is damaged, its configuration is another one, or its gripper cannot be turned into the policy's.
    """
    opened = open_folder(initial)
    config = read_config(opened)
    if policy.lora is not None and config.lora is None:
        config = replace(config, lora=policy.lora)
    if _turned(config, policy):
        _check_turn(initial, config, read_statistics(opened.statistics, FILE_NAME), demonstrated)
        config = replace(config, gripper="signed")
    if config != policy:
        raise InputError(f"checkpoint {initial} has another configuration than the policy to train")
    return opened


def start_policy(
    config: PolicyConfig,
    *,
    seed: int,
    initial: str | Path | None = None,
    demonstrated: Iterable[str],
    precision: str = "float32",
) -> AvaVlaPolicy:
    """The policy to train, equal on every worker.

    Args:
        initial: checkpoint folder that `check_start` accepted; fresh weights when left out.
        demonstrated: names of the data sets that it learns from.
        precision: see `set_types`.
    """
    torch.manual_seed(seed)
    if initial is None:
        policy = AvaVlaPolicy(config)
    else:
        policy = load_checkpoint(initial, verify=False).policy
        if config.lora is not None and policy.config.lora is None:
            from avavla_ray.policy.lora import adapt

            adapt(policy, config.lora)
        if _turned(policy.config, config):
            _turn_gripper(policy, demonstrated)
    return set_types(policy, precision)


def set_types(policy: AvaVlaPolicy, precision: str) -> AvaVlaPolicy:
    """All weights in float32, which optimizers need; with "bfloat16", what LoRA freezes in that.

    Autocast would make a bfloat16 copy of every frozen weight in every forward pass, and keep it.
    """
    frozen = {id(each) for each in policy.parameter_groups()["frozen"]} if precision == "bfloat16" else set()
    for parameter in policy.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if id(parameter) in frozen else torch.float32)
    return policy


def _turned(start: PolicyConfig, policy: PolicyConfig) -> bool:
    return start.gripper == "open_fraction" and policy.gripper == "signed"


def _check_turn(
    initial: str | Path, config: PolicyConfig, statistics: dict[str, Statistics], demonstrated: Iterable[str]
) -> None:  # fmt: skip
    from avavla_ray.policy.openvla.gripper import closing_of

    closing_of(demonstrated)
    if isinstance(config.backbone, BackboneConfig) or not config.backbone.head_blocks:
        raise InputError(
            f"checkpoint {initial} reads the gripper off no L1 head, which alone can be turned into the "
            "demonstrations' units: import it with --parallel"
        )
    if all(each.action.mask[-1] for each in statistics.values()):
        raise InputError(
            f"checkpoint {initial} normalises the gripper, the demonstrations' is left as it is: start from weights "
            "whose statistics leave it so too"
        )


@torch.no_grad()
def _turn_gripper(policy: AvaVlaPolicy, demonstrated: Iterable[str]) -> None:
    """The same openings of the gripper, commanded as the demonstrations do."""
    from avavla_ray.policy.openvla.gripper import closing_of, signed_weights

    closing = closing_of(demonstrated)
    for name, parameter in policy.backbone.model.named_parameters():
        parameter.copy_(signed_weights(name, parameter, closing))
    policy.config = replace(policy.config, gripper="signed")
