"""Checkpoints of every policy, small or OpenVLA's: the folder of `policy/folder.py` to and from an `AvaVlaPolicy`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avavla_ray import normalisation
from avavla_ray.errors import InputError, check_known
from avavla_ray.normalisation import Statistics, read_statistics, statistics_json
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.config_json import from_json, to_json
from avavla_ray.policy.folder import (
    AGAIN,
    CONFIG,
    SHARD_BYTES,
    TOKENIZER,
    UNUSED,
    CheckpointFolder,
    open_folder,
    write_folder,
)
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.parts import check_unmerged, make_backbone
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.precision import DTYPES
from avavla_ray.policy.tensors import differences, shapes_of, summary
from avavla_ray.policy.units import check_widths

BACKBONE = "backbone."
# What export needs to know of the published checkpoint; carried from checkpoint to checkpoint in `extra`.
PUBLISHED = "published"
VALUED = ("ppo", "calibrated")  # stages of checkpoints after which the value head is one


def has_value(stage: str, provenance: Mapping[str, Any]) -> bool:
    """Whether the value head of a checkpoint has been trained: by PPO, unless groups of episodes took its place."""
    return stage in VALUED and not provenance.get("ppo", {}).get("group_size")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        policy: in evaluation mode.
        all_statistics: by data set.
        stage: what training made it, for instance "import", "bc", "ppo".
        provenance: of the run that wrote it. extra: whatever else the writer kept.
        digest: SHA-256 over weights, configuration, statistics and tokenizer: equal digests act alike.
    """

    policy: AvaVlaPolicy
    all_statistics: dict[str, Statistics]
    stage: str
    provenance: dict[str, Any]
    extra: dict[str, Any]
    digest: str
    path: Path

    @property
    def statistics(self) -> Statistics:
        """Of the only data set.

        Raises:
            InputError: there are several; `statistics_of` takes one.
        """
        return self.statistics_of(None)

    def statistics_of(self, key: str | None) -> Statistics:
        """Of one data set; None takes the only one.

        Raises:
            InputError: no such data set, several and no key, or one of another robot than the policy's.
        """
        known = self.all_statistics
        if key is None and len(known) != 1:
            names = ", ".join(sorted(known))
            raise InputError(f"checkpoint {self.path} has statistics of {len(known)} data sets: name one of {names}")
        key = next(iter(known)) if key is None else key
        check_known("normalisation key", key, known)
        check_widths(self.policy.config, known[key])
        return known[key]


def save_checkpoint(
    folder: str | Path,
    policy: AvaVlaPolicy,
    statistics: Statistics | Mapping[str, Statistics],
    *,
    stage: str,
    provenance: dict[str, Any],
    extra: dict[str, Any] | None = None,
    origin: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint; `folder` holds the old one or the new one at any moment. Tensors keep their dtype.

    Args:
        statistics: of the data set that the policy was trained on, or of several by name.
        origin: the checkpoint that the policy came from; what that one keeps for export to the published layout is
            carried along.
        shard_bytes: largest file of weights.

    Raises:
        InputError: the place cannot be written, `origin` is no whole checkpoint, or adapters are merged for rollouts.
    """
    check_unmerged(policy, "saving")
    before = None if origin is None else open_folder(origin, verify=False)
    extra = dict(extra or {})
    if before is not None and PUBLISHED in before.extra:
        extra[PUBLISHED] = before.extra[PUBLISHED]
    content = {statistics.name: statistics} if isinstance(statistics, Statistics) else statistics
    write_folder(
        folder, _with_unused(policy.state_dict().items(), before),
        config=to_json(policy.config), statistics=statistics_json(content), tokenizer=policy.config.tokenizer,
        sources=before.sources() if before else (), stage=stage, provenance=provenance, extra=extra,
        shard_bytes=shard_bytes,
    )  # fmt: skip


def load_checkpoint(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    verify: bool = True,
) -> Checkpoint:
    """Read a checkpoint, verifying every file against the manifest first.

    Weights go to `device` one tensor at a time, so that memory stays near the policy's own. The statistics' widths are
    not compared with the policy's here, for one data set as for many: cloning from it brings those of the
    demonstrations. Whoever uses them does, by `statistics_of` or `units.check_widths`.

    Args:
        dtype: of the backbone; None keeps that of an OpenVLA backbone's files. Everything else, adapters included, is
            float32.
        verify: check the hash of every file, which reads all of them once; otherwise only their sizes.

    Raises:
        InputError: one line that lists everything missing, truncated, altered, foreign, or of another shape.
    """
    opened = open_folder(folder, verify)
    config = read_config(opened)
    try:
        all_statistics = read_statistics(opened.statistics, normalisation.FILE_NAME)
    except InputError as error:
        raise InputError(f"checkpoint {opened.path}: {error}") from error
    _check_tokenizer(opened.path, config)
    policy = empty_policy(config)
    _fill(policy, opened, device, dtype)
    policy.statistics = all_statistics
    return Checkpoint(
        policy.eval(), all_statistics, opened.stage, opened.provenance, opened.extra, opened.digest, opened.path
    )


def read_config(opened: CheckpointFolder) -> PolicyConfig:
    """The policy's configuration, tokenizer included.

    Raises:
        InputError: config.json is not one that a policy can be built from.
    """
    try:
        return from_json(opened.config, opened.tokenizer)
    except InputError as error:
        raise InputError(f"checkpoint {opened.path}: {error}") from error


def empty_policy(config: PolicyConfig) -> AvaVlaPolicy:
    """A policy whose OpenVLA backbone, if it has one, is on `meta`: without memory until it is filled."""
    if not isinstance(config.backbone, OpenVlaConfig):
        return AvaVlaPolicy(config)
    with torch.device("meta"):
        backbone = make_backbone(config)
    return AvaVlaPolicy(config, backbone)


def policy_of(config: PolicyConfig, state: Mapping[str, Tensor]) -> AvaVlaPolicy:
    """A policy whose weights are the CPU tensors of a state dict themselves, not copies of them."""
    policy = empty_policy(config)
    policy.load_state_dict(dict(state), assign=True)
    if isinstance(config.backbone, OpenVlaConfig):
        from avavla_ray.policy.openvla.shapes import fill_buffers

        fill_buffers(policy.backbone.model, "cpu")
    return policy


def _with_unused(
    tensors: Iterable[tuple[str, Tensor]], before: CheckpointFolder | None
) -> Iterator[tuple[str, Tensor]]:
    yield from tensors
    if before is not None:
        yield from before.unused()


def _fill(
    policy: AvaVlaPolicy, opened: CheckpointFolder, device: torch.device | str, dtype: torch.dtype | None
) -> None:
    """Give every parameter its value from the files, on `device`; a file's tensor is let go before the next."""
    present = {name: shape for name, shape in opened.shapes.items() if not name.startswith(UNUSED)}
    expected = shapes_of(policy.state_dict().items())
    if problems := differences(expected, present):
        raise InputError(
            f"checkpoint {opened.path}: its weights do not fit its {CONFIG} ({summary(problems)}): keep the files that "
            f"were written together"
        )
    openvla = isinstance(policy.config.backbone, OpenVlaConfig)
    for name in expected:
        tensor = opened.read(name, device)
        if not tensor.is_floating_point():
            raise InputError(f"checkpoint {opened.path}: {name} holds {tensor.dtype}, not weights: {AGAIN}")
        if dtype is None and tensor.dtype not in DTYPES.values():
            raise InputError(
                f"checkpoint {opened.path}: {name} holds {tensor.dtype}, neither of {', '.join(DTYPES)}: load it with "
                f"a precision and save it again"
            )
        kind = torch.float32
        if name.startswith(BACKBONE) and ".lora_" not in name:
            kind = dtype or (tensor.dtype if openvla else kind)
        parent, _, leaf = name.rpartition(".")
        # On the CPU a file's tensor may be a view of its mapping; the policy must not depend on the file.
        owner = policy.get_submodule(parent)
        old = owner.get_parameter(leaf)
        setattr(owner, leaf, nn.Parameter(tensor.to(kind, copy=tensor.device.type == "cpu"), old.requires_grad))
    if openvla:
        from avavla_ray.policy.openvla.shapes import fill_buffers

        fill_buffers(policy.backbone.model, device)
    policy.to(device)
    if dtype is not None:
        policy.seam.set_precision(dtype)


def _check_tokenizer(folder: Path, config: PolicyConfig) -> None:
    if config.tokenizer and isinstance(config.backbone, OpenVlaConfig):
        from avavla_ray.policy.openvla.prompt import PromptTokenizer

        PromptTokenizer(config.tokenizer, config.backbone, str(folder / TOKENIZER))
