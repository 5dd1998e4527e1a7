"""What one Ray Train worker does: the stages of behaviour cloning, with validation, checkpoints and resuming."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from avavla_ray.demonstrations.decisions import DrawLoader, WindowSettings
from avavla_ray.demonstrations.mixture import Mixture, split
from avavla_ray.demonstrations.windows import Source, WindowWalk, prefetch
from avavla_ray.errors import DiskFull, InputError
from avavla_ray.policy.checkpoint import load_checkpoint, policy_of, save_checkpoint
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.preparation import Preparation
from avavla_ray.policy.types import Belief
from avavla_ray.progress import Progress
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.stores import StoreUnreachable
from avavla_ray.training.budget import Position, cloned, next_stage, passed, stage_at, used
from avavla_ray.training.cloning_start import set_types, start_policy
from avavla_ray.training.cloning_state import (
    POLICY,
    exhaust,
    gather_beliefs,
    learner_reader,
    read_beliefs,
    write_beliefs,
    write_learner,
)
from avavla_ray.training.devices import keep_to_given_gpus
from avavla_ray.training.engine import start_process_group
from avavla_ray.training.held_out import HeldOut
from avavla_ray.training.meter import Meter
from avavla_ray.training.output import CHECKPOINTS, LAUNCH, refusal, refuse
from avavla_ray.training.run_checkpoints import RunCheckpoints, StoredCheckpoint
from avavla_ray.training.run_lock import RunLock
from avavla_ray.training.settings import CloningSettings
from avavla_ray.training.shared_output import SharedOutput
from avavla_ray.training.stage_run import RAW, StageRun, engine_settings
from avavla_ray.training.telemetry import Telemetry

LOG_EVERY = 10
Load = Callable[[DrawLoader], Source]


@dataclass(frozen=True)
class CloningWork:
    """Everything a worker needs to know; picklable.

    Attributes:
        mixture: data sets that every worker can read.
        output: folder that every worker can read and write. launch: what the driver wrote into its file LAUNCH.
        store: what is between machines that share no folder; `output` is then this machine's. None where they do.
        initial: checkpoint to start from, None for fresh weights. initial_address: where in a store it lies, None for
            one that all machines have. held_out_before: names of the episodes that it was not trained on, by data set.
            provenance: written into checkpoints.
        tracking: (store, run id) of the MLflow run that rank 0 logs to, None for none.
    """

    settings: CloningSettings
    policy: PolicyConfig
    mixture: Mixture
    output: Path
    launch: str
    provenance: dict[str, Any]
    initial: Path | None = None
    held_out_before: dict[str, list[str]] = field(default_factory=dict)
    tracking: tuple[str, str] | None = None
    store: SharedOutput | None = None
    initial_address: str | None = None


def work(what: CloningWork) -> None:
    """Train to the end of the budget, from the newest complete checkpoint in the output folder if there is one."""
    import ray.train

    from avavla_ray.training.loading import RayDataSource

    context = ray.train.get_context()
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train logs at INFO
    logging.getLogger("ray.train.v2._internal.util").addFilter(_is_unexpected)
    torch.set_num_threads(what.settings.threads)
    keep_to_given_gpus()
    what = _on_this_machine(what)
    _check_shared(what)
    if (what.store.refusal(what.launch) if what.store else refusal(what.output, what.launch)) is not None:
        return  # the driver says why
    rank, world = context.get_world_rank(), context.get_world_size()
    start_process_group(engine_settings(what.settings, world))
    worker = Worker(what, rank, world, lambda loader: RayDataSource(loader, cpus=what.settings.data_cpus / world))
    # Whoever is still dying must not write beside us.
    with RunLock(what.output / CHECKPOINTS) if rank == 0 else contextlib.nullcontext():
        try:
            with what.store.publishing() if what.store and rank == 0 else contextlib.nullcontext(_nobody) as saved:
                worker.saved = saved
                worker.start()
                worker.train()
        except (InputError, FloatingPointError) as error:
            if what.store is not None and isinstance(error, StoreUnreachable):
                raise  # when Ray Train has started the workers again it may answer
            # Ray Train starts the workers again, to the same end: they are told, and the driver.
            print(f"training stopped: {error}", flush=True)
            with contextlib.suppress(DiskFull, StoreUnreachable):  # then the driver hears of it when Ray Train gives up
                refuse(what.output, what.launch, str(error))
                if what.store is not None:
                    what.store.refuse(what.launch, str(error))
            raise


def _nobody() -> None:
    """Nobody waits for checkpoints."""


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Ray Train logs what a worker raises with its traceback, which wrong input does not need."""
    last = record.getMessage().rstrip().rpartition("\n")[2]
    return not last.startswith(f"{InputError.__module__}.")


def _on_this_machine(what: CloningWork) -> CloningWork:
    """The same work, with this machine's paths of what lies in a store."""
    if what.store is None:
        return what
    initial = what.initial
    if initial is not None and what.initial_address is not None:
        initial = local_copy(what.initial_address)
    return replace(what, output=what.store.folder, initial=initial)


def _check_shared(what: CloningWork) -> None:
    """A machine with a folder of its own under this name would begin anew, or keep checkpoints where nobody looks."""
    if what.store is not None:
        if what.store.launched() != what.launch:
            raise InputError(f"another start of the job trains into {what.store.store}: end one of the two")
        return
    path = what.output / LAUNCH
    if not path.is_file() or path.read_text(encoding="utf-8") != what.launch:
        raise InputError(
            f"{what.output} on {socket.gethostname()} is not the folder that the job was started with: give an "
            "--output on a file system that all machines share"
        )


class Worker:
    """The share of one training process; needs a process group and no Ray."""

    def __init__(self, what: CloningWork, rank: int, world: int, load: Load | None = None) -> None:
        """
        Args:
            load: makes the source of the demonstrations; None loads them in this process.
        """
        self.what, self.settings, self.rank, self.world = what, what.settings, rank, world
        chosen, config = what.settings, what.policy
        self.mixture = what.mixture
        training, held_out = split(
            self.mixture, chosen.held_out, chosen.held_out_limit, chosen.seed, what.held_out_before
        )
        self.preparation = Preparation(config)
        windows = WindowSettings(
            streams=chosen.streams, decisions=chosen.decisions, chunk=config.chunk, augmentation=chosen.augmentation,
            proprio_noise=chosen.proprio_noise, seed=chosen.seed,
        )  # fmt: skip
        loader = DrawLoader(self.mixture, windows, episodes=training, backbone=config.backbone)
        self.walk = WindowWalk(
            self.mixture, self._tokens, windows, episodes=training, rank=rank, world=world, backbone=config.backbone,
            source=load and load(loader),
        )  # fmt: skip
        self.held_out = HeldOut(self.mixture, held_out, self._tokens)
        self.position = Position()
        self.store = RunCheckpoints(what.output / CHECKPOINTS, chosen.keep)
        self.tracked = Telemetry(what.tracking if rank == 0 else None, what.output)
        self.belief: Belief
        self.stage: StageRun
        self.validation: dict[str, float] = {}
        self.validated_at = -1
        self.ended = False
        self.saved: Callable[[], None] = _nobody  # called when a checkpoint has been written

    def _tokens(self, instruction: str) -> np.ndarray:
        return self.preparation.text(instruction).numpy()

    # Beginning, resuming, changing stage

    def start(self) -> None:
        """From the newest checkpoint that rank 0 sees, else from the beginning."""
        found = [self.store.newest(verify=True) if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(found, src=0)
        if found[0] is None:
            if self.rank == 0 and any(self.store.folder.glob("damaged-*")):
                raise InputError(
                    f"{self.store.folder} holds damaged checkpoints only: restore one, or give another --output"
                )
            self._begin()
        else:
            store = self.what.store if self.rank > 0 else None
            self._resume(found[0] if store is None else store.take(found[0]))
            self.ended = self._is_over()  # before a stage is entered, which is due a step
            entering = self._due()
            if entering is not None:
                self._enter(entering)

    def _due(self) -> int | None:
        """The stage that should begin now, if any: one after the other, with a step each at least, even if validating
        took the time of a whole one."""
        thinks = self.what.policy.latent.enabled
        due, _ = stage_at(self.settings, self.position.fraction, thinks)
        return next_stage(self.settings, self.position.stage, thinks) if due > self.position.stage else None

    def _begin(self) -> None:
        policy = start_policy(
            self.what.policy, seed=self.settings.seed, initial=self.what.initial,
            demonstrated=self.mixture.statistics, precision=self.settings.precision,
        )  # fmt: skip
        self.position.stage, _ = stage_at(self.settings, 0.0, self.what.policy.latent.enabled)
        self.stage = self._run_stage(policy)
        self.belief = self.stage.policy.initial_belief(len(self.walk.mine), self.stage.engine.device)

    def _resume(self, stored: StoredCheckpoint) -> None:
        facts = stored.facts
        self.position = Position(**facts["position"])
        self.validation = facts["validation"]
        self.walk.restore(facts["walk"])
        policy = load_checkpoint(stored.path / POLICY, verify=False).policy.train()
        result = dict(policy.state_dict()) if self.settings.average else {}
        read = learner_reader(stored.path)
        if self.settings.average:
            raw = {name: read(name + RAW) for name in facts["learning"]}
            result = {name: result[name].clone() for name in raw}
            policy.load_state_dict(raw, strict=False)
        self.stage = self._run_stage(set_types(policy, self.settings.precision))
        self.stage.load_learner(read, result.__getitem__, facts["averaged"])
        self.belief = read_beliefs(stored.path, self.walk.mine, self.stage.engine.device)
        if self.rank == 0:
            print(
                f"resumed at step {self.position.step} ({self.stage.stage.kind}), saved by {facts['world']} worker(s), "
                f"on {self.world}",
                flush=True,
            )

    def _run_stage(self, policy: AvaVlaPolicy) -> StageRun:
        return StageRun(policy, self.settings, self.position.stage, rank=self.rank, world=self.world)

    def _enter(self, index: int) -> None:
        """The next stage trains other parts: a fresh engine on a fresh module with the result of this one."""
        state = self.stage.weights(everywhere=True)
        assert state is not None
        self.stage.close()
        del self.stage  # before the next one takes its place in memory
        self.position.stage = index
        policy = policy_of(self.what.policy, state).train()
        del state  # its tensors are the policy's, which the engine moves or shards
        self.stage = self._run_stage(policy)

    # The loop

    def train(self) -> None:
        settings, position, thinks = self.settings, self.position, self.what.policy.latent.enabled
        begun = time.monotonic() - position.elapsed
        saved = time.monotonic()
        total, unit = (settings.steps, "steps") if settings.minutes is None else (round(60 * settings.minutes), "s")
        at = position.step if settings.minutes is None else int(position.elapsed)
        progress = Progress(total or 0, "clone", unit, done=at) if self.rank == 0 else None
        batches = prefetch(self.walk)
        meter = Meter()
        while not self.ended:
            asked = time.perf_counter()
            batch, walk_state = next(batches)
            waited = time.perf_counter() - asked
            due, share = stage_at(settings, position.fraction, thinks)
            done = share if due == position.stage else 1.0
            self.belief, metrics = self.stage.step(
                batch, self.belief, step=position.step, done=done, cloned=cloned(settings, position.fraction, thinks),
                mine=self.walk.mine,
            )  # fmt: skip
            position.step += 1
            meter.add(settings.streams * settings.decisions, waited, time.perf_counter() - asked)
            before, position.elapsed = position.fraction, time.monotonic() - begun
            position.fraction, unsaved = self._agree(
                used(settings, position.step, position.elapsed), time.monotonic() - saved
            )
            self.ended = ended = self._is_over()
            if position.step % LOG_EVERY == 0 or ended:
                numbers = {**metrics, **meter.recent(), "fraction": position.fraction, "stage": position.stage}
                self._log({f"train/{name}": value for name, value in numbers.items()})
                if progress is not None:
                    seen = position.step if settings.minutes is None else min(int(position.elapsed), total or 0)
                    notes = {"step": position.step, "loss": metrics["loss"], "decisions/s": numbers["decisions_per_s"]}
                    progress.advance(seen - progress.count, stage=self.stage.stage.kind, **notes, **self.validation)
            entering = self._due()
            changing = entering is not None or ended
            if changing or passed(before, position.fraction, settings.validations):
                self._validate()
            if changing or passed(before, position.fraction, settings.checkpoints) or unsaved > self._patience:
                self._save(walk_state, meter.total(), last=ended)
                saved = time.monotonic()
            if entering is not None:
                self._enter(entering)
        batches.close()
        self.walk.close()
        if progress is not None:
            progress.close()
        self.tracked.close()
        self.stage.close()

    def _is_over(self) -> bool:
        """The budget is used, and no stage is left to begin."""
        position = self.position
        last = next_stage(self.settings, position.stage, self.what.policy.latent.enabled) is None
        return position.fraction >= 1.0 and last

    @property
    def _patience(self) -> float:
        return 60 * self.settings.checkpoint_minutes

    def _agree(self, *numbers: float) -> list[float]:
        """Rank 0's clock decides, so that all ranks save, change stage and stop at the same step."""
        if self.world == 1:
            return list(numbers)
        shared = torch.tensor(numbers, dtype=torch.float64, device=self.stage.engine.device)
        dist.broadcast(shared, src=0)
        return shared.tolist()

    def _validate(self) -> None:
        if not self.held_out:
            return
        found = self.held_out.validate(self.stage)
        self.validation, self.validated_at = {"val_l1": found["l1"]}, self.position.step
        self._log({f"val/{name}": value for name, value in found.items()})

    def _log(self, metrics: dict[str, float]) -> None:
        self.tracked.log_metrics(metrics, step=self.position.step)

    def _save(self, walk_state: dict[str, Any], speed: dict[str, float], *, last: bool) -> None:
        """Everything that resuming needs, on any number of workers. Collective; rank 0 writes.

        A full disk does not end training, unless it is the last checkpoint: the older ones stay, and the next attempt
        may find room.
        """
        state = self.stage.weights()
        beliefs = gather_beliefs(self.belief, self.walk.mine, self.settings.streams, self.world)
        learner = self.stage.learner()
        if state is None:
            exhaust(learner)
            return
        position = asdict(self.position)
        facts = {
            "position": position, "walk": walk_state, "validation": self.validation, "world": self.world,
            "speed": speed, "unlogged": self.tracked.waiting, "averaged": self.stage.averaged,
            "learning": self.stage.learning if self.settings.average else [],
        }  # fmt: skip
        held_out = {**self.what.held_out_before, **self.held_out.names}
        # What the first checkpoint took over from `initial` goes from one to the next: that may be gone by now.
        before = self.store.newest()
        origin = self.what.initial if before is None else before.path / POLICY

        def fill(folder: Path) -> None:
            write_learner(folder, learner)
            write_beliefs(folder, beliefs)
            save_checkpoint(
                folder / POLICY, policy_of(self.what.policy, state), self.mixture.statistics, stage="bc",
                provenance=self.what.provenance, origin=origin,
                extra={"training": position, "validation": self.validation, "held_out": held_out},
            )  # fmt: skip

        fresh = self.validated_at == self.position.step
        try:
            self.store.write(
                self.position.step,
                fill,
                score=self.validation["val_l1"] if fresh else None,
                facts=facts,
                stage=self.position.stage,
            )
            self.saved()
        except DiskFull as error:
            if last:
                raise
            print(f"no checkpoint at step {self.position.step}: {error}; training goes on", flush=True)
        finally:
            exhaust(learner)
