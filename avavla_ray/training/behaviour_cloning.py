"""Behaviour cloning as a Ray Train job: checks, the trainer, and the final checkpoint.

    OUTPUT/
      settings.json      what the run was started with; --resume must agree
      train/             Ray Train's checkpoints: DeepSpeed shards, beliefs, the policy
      checkpoint/        the final policy, in the one format of policy/checkpoint.py

Every worker reads the Parquet files itself: consecutive decisions of a stream must reach the same worker in order,
which a shuffling data pipeline would undo.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avavla_ray.demonstrations.reader import DatasetMetadata, read_metadata
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, write_json
from avavla_ray.policy.checkpoint import Checkpoint, load_checkpoint
from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.training.settings import CloningSettings

SETTINGS, TRAIN, CHECKPOINT = "settings.json", "train", "checkpoint"


@dataclass(frozen=True)
class CloningResult:
    """checkpoint: folder of the final policy. metrics: last position and validation."""

    checkpoint: Path
    metrics: dict[str, Any]


def check_output(output: Path, identity: dict[str, Any], resume: bool) -> None:
    """Refuse to mix runs: a fresh run wants an empty folder, a resumed one the settings it began with.

    Raises:
        InputError: names the folder, or the settings that differ.
    """
    path = output / SETTINGS
    if not path.is_file():
        if resume:
            raise InputError(f"{output} holds no run to resume: leave --resume out, or give the run's --output")
        write_json(path, identity)
        return
    check_unused(output, resume)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not readable ({error}): give another --output") from error
    now = json.loads(json.dumps(identity))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        changes = ", ".join(f"{key} {before.get(key)} -> {now.get(key)}" for key in differing)
        raise InputError(
            f"{output} was begun with other settings ({changes}): resume with those, or give another --output"
        )


def check_unused(output: Path, resume: bool) -> None:
    """Raise InputError when `output` holds a run that nobody asked to resume. Writes nothing."""
    if (output / SETTINGS).is_file() and not resume:
        raise InputError(f"{output} holds a run already: add --resume to continue it, or give another --output")


def check_fit(metadata: DatasetMetadata, policy: PolicyConfig) -> None:
    """Raise InputError when a policy can't learn from a data set: another width of actions or proprioception, or an
    instruction too long for it."""
    statistics = metadata.statistics
    for kind, found, wanted in (
        ("actions", len(statistics.action.mask), policy.action_dim),
        ("proprioception", len(statistics.proprio.mask), policy.proprio_dim),
    ):
        if found != wanted:
            raise InputError(f"{metadata.folder}: {kind} of {found} numbers, the policy takes {wanted}")
    tokenizer = make_tokenizer(policy)
    for instruction in {episode.instruction for episode in metadata.episodes}:
        tokenizer.encode(instruction)


def train(
    settings: CloningSettings,
    policy: PolicyConfig,
    demonstrations: str | Path,
    output: str | Path,
    *,
    initial: str | Path | None = None,
    resume: bool = False,
    provenance: dict[str, Any] | None = None,
    tracking: tuple[str, str] | None = None,
) -> CloningResult:
    """Clone demonstrations on the connected Ray cluster.

    Args:
        policy: with `lora` and an `initial` that has no adapters, they are added to it.
        initial: checkpoint folder to start from instead of fresh weights; its configuration must be `policy`, but for
            the adapters, and the gripper of an OpenVLA import, which is turned into the demonstrations'.
        provenance: of this run, for its checkpoints. tracking: (absolute store URI, run id) for metrics.

    Raises:
        InputError: what was given is wrong. ray.train.TrainingFailedError: workers failed too often.
    """
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from avavla_ray.training.cloning_worker import POLICY, CloningWork, work

    demonstrations, output = Path(demonstrations).absolute(), Path(output).absolute()
    metadata = read_metadata(demonstrations)
    check_fit(metadata, policy)
    if settings.recompute and isinstance(policy.backbone, BackboneConfig):
        raise InputError(f"recompute: preset {policy.preset} keeps few activations, only OpenVLA can do without them")
    weights = None
    if initial is not None:
        weights = initial_weights(initial, policy, settings.seed)
    identity = {
        **asdict(settings), "policy": policy.preset, "demonstrations": str(demonstrations),
        "lora": policy.lora and asdict(policy.lora),
        "initial": None if initial is None else str(Path(initial).absolute()),
    }  # fmt: skip
    check_output(output, identity, resume)
    trained_on = {
        "demonstrations": {
            "name": metadata.name, "episodes": len(metadata.episodes), "steps": metadata.steps,
            **metadata.manifest.get("provenance", {}),
        },
        "cloning": asdict(settings),
    }  # fmt: skip
    trainer = TorchTrainer(
        work,
        train_loop_config=CloningWork(
            settings,
            policy,
            demonstrations,
            {**(provenance or {}), **trained_on},
            weights,
            tracking,
        ),
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=settings.workers, resources_per_worker={"CPU": settings.threads}),
        run_config=RunConfig(
            name=TRAIN,
            storage_path=str(output),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=settings.keep),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    result = trainer.fit()
    with result.checkpoint.as_directory() as folder, atomic_path(output / CHECKPOINT) as temporary:
        shutil.copytree(Path(folder) / POLICY, temporary)
    return CloningResult(output / CHECKPOINT, dict(result.metrics or {}))


def initial_weights(checkpoint: str | Path, policy: PolicyConfig, seed: int) -> dict[str, np.ndarray]:
    """What training starts from, by parameter name, all float32.

    Raises:
        InputError: the checkpoint's configuration is another one, or its gripper cannot be turned into the policy's.
    """
    loaded = load_checkpoint(checkpoint)
    start = loaded.policy
    if policy.lora is not None and start.config.lora is None:
        from avavla_ray.policy.lora import adapt

        torch.manual_seed(seed)
        adapt(start, policy.lora)
    turned = start.config.gripper == "open_fraction" and policy.gripper == "signed"
    if (replace(start.config, gripper="signed") if turned else start.config) != policy:
        raise InputError(f"checkpoint {checkpoint} has another configuration than the policy to train")
    weights = {name: tensor.float() for name, tensor in start.state_dict().items()}
    if turned:
        weights = _signed_gripper(weights, loaded)
    return {name: tensor.numpy() for name, tensor in weights.items()}


def _signed_gripper(weights: dict[str, Tensor], start: Checkpoint) -> dict[str, Tensor]:
    """The same openings of the gripper, commanded as the demonstrations do."""
    from avavla_ray.policy.openvla.gripper import signed_weights

    if start.policy.seam.head is None or isinstance(start.policy.config.backbone, BackboneConfig):
        raise InputError(
            f"checkpoint {start.path} reads the gripper off no L1 head, which alone can be turned into the "
            "demonstrations' units: import it with --parallel"
        )
    if all(each.action.mask[-1] for each in start.all_statistics.values()):
        raise InputError(
            f"checkpoint {start.path} normalises the gripper, the demonstrations' is left as it is: start from weights "
            "whose statistics leave it so too"
        )
    prefix = "backbone.model."
    return {name: signed_weights(name.removeprefix(prefix), tensor) for name, tensor in weights.items()}
