"""Behaviour cloning as a Ray Train job: checks, the trainer, and the final checkpoints.

OUTPUT/
  settings.json      what the run was started with; --resume must agree
  checkpoints/       what the run resumes from: the newest few and the best (training/cloning_state.py)
  checkpoint/        the final policy, in the one format of policy/checkpoint.py
  best/              the policy of the lowest held-out error in the last stage
  launch             which start of the job may write here
  ray/               Ray Train's own notes
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avavla_ray.demonstrations.augmentation import check_augmentation
from avavla_ray.demonstrations.mixture import Mixture, open_mixture, split
from avavla_ray.demonstrations.reader import DatasetMetadata
from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, remove_temporaries, write_text
from avavla_ray.machines import for_learners
from avavla_ray.policy.checkpoint import has_value
from avavla_ray.policy.config import BackboneConfig, PolicyConfig
from avavla_ray.policy.config_json import to_json
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.storage.names import address_of
from avavla_ray.storage.place import absolute
from avavla_ray.training.cloning_start import check_start
from avavla_ray.training.cloning_state import POLICY
from avavla_ray.training.devices import learners_gpus
from avavla_ray.training.output import CHECKPOINTS, LAUNCH, check_identity, check_output, check_unused, refusal
from avavla_ray.training.run_checkpoints import RunCheckpoints
from avavla_ray.training.run_lock import RunLock
from avavla_ray.training.settings import CloningSettings
from avavla_ray.training.shared_output import SharedOutput
from avavla_ray.training.stage_run import engine_settings
from avavla_ray.training.stages import check_stages

CHECKPOINT, BEST, RAY = "checkpoint", "best", "ray"
# Ray Train's: seconds to wait for the machines of a group of workers before it is made anew, smaller where it may be.
PATIENCE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
# A run may go on with another number of workers, or sharded otherwise: what is learned does not depend on these.
FREE = (
    "workers", "min_workers", "threads", "data_cpus", "zero_stage", "offload", "accumulation", "recompute", "keep",
    "max_failures", "checkpoint_minutes", "checkpoints", "validations", "gpus",
)  # fmt: skip


@dataclass(frozen=True)
class CloningResult:
    """checkpoint: folder of the final policy. best: of the one with the lowest held-out error, None without
    validation. metrics: last position, validation and speed."""

    checkpoint: Path
    best: Path | None
    metrics: dict[str, Any]


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


def _compare_pictures(metadata: DatasetMetadata, policy: PolicyConfig) -> None:
    """Say so when rollouts will show the policy other pictures than it learns from: scaled ones look otherwise."""
    found, wanted = metadata.manifest.get("image_size"), policy.backbone.camera_size
    if found not in (None, wanted):
        print(
            f"{metadata.folder}: pictures of {found} pixels are scaled for training, and the policy's simulators will "
            f"render {wanted}, which looks otherwise: better collect with --image-size {wanted}, or import with "
            f"--regenerate {wanted}",
            flush=True,
        )


@dataclass(frozen=True)
class CloningPlan:
    """A run whose every input has been looked at; nothing has been written or started.

    Attributes:
        initial: checkpoint folder to start from instead of fresh weights.
        held_out_before: names of the episodes that `initial` was not trained on, by data set.
        identity: what the folder of the run remembers, for --resume to agree with.
    """

    settings: CloningSettings
    policy: PolicyConfig
    mixture: Mixture
    output: Path
    initial: Path | None
    held_out_before: dict[str, list[str]]
    resume: bool
    identity: dict[str, Any]

    @property
    def held_out(self) -> list[int]:
        """How many episodes of each data set no step learns from."""
        chosen = self.settings
        _, held_out = split(self.mixture, chosen.held_out, chosen.held_out_limit, chosen.seed, self.held_out_before)
        return [len(episodes) for episodes in held_out]


def plan(
    settings: CloningSettings,
    policy: PolicyConfig,
    demonstrations: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    initial: str | Path | None = None,
    resume: bool = False,
) -> CloningPlan:
    """Look at everything that can be wrong, before anything is started.

    Args:
        policy: with `lora` and an `initial` that has no adapters, they are added to it.
        demonstrations: one data set or several, as `open_mixture` takes them.
        output: folder on a file system that all machines of the cluster share, or one that `storage.arguments.mirrored`
            made for a store.
        initial: its configuration must be `policy`, but for the adapters, and the gripper of an OpenVLA import, which
            is turned into the demonstrations'.
        resume: continue the run in `output` from its newest checkpoint, on any number of workers.

    Raises:
        InputError: one line that names what is wrong.
    """
    if re.match(r"\w{2,}:/", str(output)):
        raise InputError(f"--output {output} is no folder: give that of `storage.arguments.mirrored`, as jobs do")
    output = Path(output).absolute()
    check_unused(output, resume)
    given = [demonstrations] if isinstance(demonstrations, (str, Path)) else list(demonstrations)
    mixture = open_mixture(given)
    for metadata in mixture.datasets:
        check_fit(metadata, policy)
        _compare_pictures(metadata, policy)
    check_augmentation(settings.augmentation, policy.backbone)
    if settings.recompute and isinstance(policy.backbone, BackboneConfig):
        raise InputError(f"recompute: preset {policy.preset} keeps few activations, only OpenVLA can do without them")
    if isinstance(policy.backbone, OpenVlaConfig) and not policy.backbone.head_blocks:
        raise InputError(
            f"{policy.preset} reads its actions off the vocabulary, which L1 cannot move: import the checkpoint with "
            "--parallel, which gives it OpenVLA-OFT's head"
        )
    for world in {settings.min_workers or settings.workers, settings.workers}:
        engine_settings(settings, world)
    start = None if initial is None else check_start(initial, policy, mixture.statistics)
    check_stages(
        settings, latent_loop=policy.latent.enabled,
        valued=start is not None and has_value(start.stage, start.provenance), fresh=start is None,
    )  # fmt: skip
    identity = {
        **{name: value for name, value in asdict(settings).items() if name not in FREE},
        **_named("policy", to_json(policy)), "initial": start and start.digest, "demonstrations": _identity(mixture),
    }  # fmt: skip
    check_identity(output, identity, resume)
    first = None if initial is None else Path(initial).absolute()
    before = {} if start is None else dict(start.extra.get("held_out") or {})
    planned = CloningPlan(settings, policy, mixture, output, first, before, resume, identity)
    _ = planned.held_out  # refuses where nothing is left to learn from
    return planned


def train(
    settings: CloningSettings,
    policy: PolicyConfig,
    demonstrations: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    initial: str | Path | None = None,
    resume: bool = False,
    provenance: dict[str, Any] | None = None,
    tracking: tuple[str, str] | None = None,
) -> CloningResult:
    """`plan` and `carry_out`."""
    chosen = plan(settings, policy, demonstrations, output, initial=initial, resume=resume)
    return carry_out(chosen, provenance=provenance, tracking=tracking)


def carry_out(
    chosen: CloningPlan, *, provenance: dict[str, Any] | None = None, tracking: tuple[str, str] | None = None
) -> CloningResult:
    """Clone demonstrations on the connected Ray cluster.

    Args:
        provenance: of this run, for its checkpoints. tracking: (absolute store URI, run id) for metrics.

    Raises:
        InputError: something became wrong (a picture that cannot be read, a full disk), or another job trains into the
            folder. ray.train.TrainingFailedError: workers failed too often.
    """
    with RunLock(chosen.output, patience=10.0):
        check_output(chosen.output, chosen.identity, chosen.resume)
        launch, store = uuid.uuid4().hex, SharedOutput.of(chosen.output)
        write_text(chosen.output / LAUNCH, launch)
        if store is not None:
            store.begin(chosen.output, launch)
        refused = _fit(chosen, launch, store, provenance or {}, tracking)
        if store is not None:
            store.gather(chosen.output)
        if refused is not None:
            newest = RunCheckpoints(chosen.output / CHECKPOINTS).newest()
            kept = f"; with --resume it goes on from step {newest.step}" if newest else ""
            raise InputError(f"{refused}{kept}")
        return _finish(chosen.output)


def _fit(
    chosen: CloningPlan, launch: str, store: SharedOutput | None, provenance: dict[str, Any],
    tracking: tuple[str, str] | None,
) -> str | None:  # fmt: skip
    """Run the workers to the end; what they found wrong, if it is nothing that repeating can mend."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from avavla_ray.training.cloning_worker import CloningWork, work

    settings = chosen.settings
    if settings.min_workers:
        os.environ.setdefault(PATIENCE, "30")  # Ray Train hands the driver's value on
    gpus = gpus_each(settings)
    print(f"each of {settings.workers} worker(s) has {settings.threads} CPU thread(s), {gpus:g} GPU(s)", flush=True)
    described = {**provenance, "demonstrations": _described(chosen.mixture), "cloning": asdict(settings)}
    cpus = settings.threads + settings.data_cpus / settings.workers
    trainer = TorchTrainer(
        work,
        train_loop_config=CloningWork(
            settings,
            chosen.policy,
            chosen.mixture,
            chosen.output,
            launch,
            described,
            chosen.initial,
            chosen.held_out_before,
            tracking,
            store,
            None if chosen.initial is None else address_of(chosen.initial),
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(settings.min_workers, settings.workers) if settings.min_workers else settings.workers,
            use_gpu=gpus > 0,
            # A worker holds the CPUs for its share of loading, too: Ray Data's tasks claim none.
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {}), **for_learners()},
        ),
        run_config=RunConfig(
            name=RAY,
            storage_path=store.store.path if store else str(chosen.output),
            storage_filesystem=store.store.system if store else None,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        refused = _refusal(chosen.output, launch, store) or _wrong_input(error)
        if refused is None:
            raise
        return refused
    return _refusal(chosen.output, launch, store)


def _refusal(output: Path, launch: str, store: SharedOutput | None) -> str | None:
    return refusal(output, launch) if store is None else store.refusal(launch)


def gpus_each(settings: CloningSettings) -> float:
    """GPUs of a worker: as set, else one each where the cluster has any, or its autoscaler could start any.

    Raises:
        InputError: it has fewer than the fewest workers; to train on CPUs beside idle GPUs has to be said.
    """
    if settings.gpus is not None:
        return settings.gpus
    found, needed = learners_gpus(), settings.min_workers or settings.workers
    if 0 < found < needed:
        raise InputError(
            f"the cluster has {found:g} GPU(s) for {needed} workers: give --workers {int(found)}, or --gpus 0 to train "
            "on CPUs"
        )
    return float(found >= needed)


def _described(mixture: Mixture) -> list[dict[str, Any]]:
    weights = mixture.weights or (None,) * len(mixture.datasets)
    return [
        {
            "name": data.name, "episodes": len(data.episodes), "steps": data.steps, "weight": weight,
            **data.manifest.get("provenance", {}),
        }
        for data, weight in zip(mixture.datasets, weights, strict=True)
    ]  # fmt: skip


def _named(name: str, value: Any) -> dict[str, Any]:
    """The leaves of nested dictionaries, by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, each in value.items() for key, leaf in _named(f"{name}.{part}", each).items()}


def _identity(mixture: Mixture) -> list[list[Any]]:
    return [[absolute(str(data.folder)), data.name, len(data.episodes), data.steps] for data in mixture.datasets] + (
        [list(mixture.weights)] if mixture.weights else []
    )


def _wrong_input(error: BaseException) -> str | None:
    """What a worker found wrong with its input, from Ray Train's record of how the workers failed."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)
        while cause is not None:
            if isinstance(cause, (InputError, FloatingPointError)):
                return str(cause)
            cause = cause.__cause__
    return None


def _finish(output: Path) -> CloningResult:
    """Put the last policy and the best one where other jobs look for them."""
    remove_temporaries(output)  # of an earlier start that was killed here
    store = RunCheckpoints(output / CHECKPOINTS)
    last, best = store.newest(), store.best()
    if last is None:
        raise InputError(f"{output / CHECKPOINTS} holds no checkpoint any more: was it removed while training?")
    for stored, name in ((last, CHECKPOINT), (best, BEST)):
        if stored is not None:
            with atomic_path(output / name) as temporary:
                shutil.copytree(stored.path / POLICY, temporary)
    facts = last.facts
    return CloningResult(
        output / CHECKPOINT, output / BEST if best else None,
        {**facts["position"], **facts["validation"], **facts["speed"]},
    )  # fmt: skip
