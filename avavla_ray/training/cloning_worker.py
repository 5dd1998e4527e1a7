"""What one Ray Train worker does: the stages of behaviour cloning, with validation, checkpoints and resuming."""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from avavla_ray.demonstrations.reader import EpisodeReader, read_metadata
from avavla_ray.demonstrations.windows import Batch, WindowSettings, WindowWalk, prefetch
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.attention import temperature_at
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.preparation import Preparation
from avavla_ray.policy.types import Belief
from avavla_ray.progress import Progress
from avavla_ray.tracking import attach
from avavla_ray.training.budget import Position, cloned, passed, rate_factor, stage_at, used
from avavla_ray.training.engine import (
    EngineSettings,
    full_state,
    initialise_engine,
    load_engine,
    save_engine,
    set_learning_rates,
    start_process_group,
)
from avavla_ray.training.meter import Meter
from avavla_ray.training.objective import CloningObjective, learning_parameters, to_tensors
from avavla_ray.training.settings import WARM_UP, CloningSettings
from avavla_ray.training.stages import PARTS
from avavla_ray.training.validation import dimension_names, held_out_errors, split

POLICY, POSITION = "policy", "position.json"
LOG_EVERY = 10


@dataclass(frozen=True)
class CloningWork:
    """Everything a worker needs to know; picklable.

    Attributes:
        demonstrations: folder that every worker can read.
        initial: weights to start from, None for fresh ones. provenance: written into checkpoints.
        tracking: (store, run id) of the MLflow run that rank 0 logs to, None for none.
    """

    settings: CloningSettings
    policy: PolicyConfig
    demonstrations: Path
    provenance: dict[str, Any]
    initial: dict[str, np.ndarray] | None = None
    tracking: tuple[str, str] | None = None


def work(what: CloningWork) -> None:
    """Train to the end of the budget, from the latest checkpoint that Ray Train hands us if there is one."""
    import ray.train

    context, checkpoint = ray.train.get_context(), ray.train.get_checkpoint()
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train logs every report at INFO
    torch.set_num_threads(what.settings.threads)
    worker = _Worker(what, context.get_world_rank(), context.get_world_size())
    if checkpoint is None:
        worker.begin(what.initial)
    else:
        with checkpoint.as_directory() as folder:
            worker.resume(Path(folder))
    worker.train()


class _Worker:
    def __init__(self, what: CloningWork, rank: int, world: int) -> None:
        self.what, self.settings, self.rank, self.world = what, what.settings, rank, world
        self.engine_settings = EngineSettings(
            zero_stage=what.settings.zero_stage,
            gradient_clip=what.settings.gradient_clip,
            accumulation=what.settings.accumulation,
            precision=what.settings.precision,
            weight_decay=what.settings.weight_decay,
        )
        start_process_group(self.engine_settings)
        config, chosen = what.policy, what.settings
        metadata = read_metadata(what.demonstrations)
        self.statistics: Statistics = metadata.statistics
        self.reader = EpisodeReader(metadata)
        self.preparation = Preparation(config)
        training, self.held_out = split(len(metadata.episodes), chosen.held_out, chosen.held_out_limit, chosen.seed)
        self.walk = WindowWalk(
            self.reader, self._tokens,
            WindowSettings(
                streams=chosen.streams, decisions=chosen.decisions, chunk=config.chunk, shift=chosen.augmentation.shift,
                proprio_noise=chosen.proprio_noise, seed=chosen.seed,
            ),
            episodes=training, prepare=self.preparation.pictures, rank=rank, world=world,
        )  # fmt: skip
        self.position = Position()
        self.run = attach(*what.tracking) if what.tracking and rank == 0 else None
        self.engine: Any = None
        self.belief: Belief
        self.validation: dict[str, float] = {}

    def _tokens(self, instruction: str) -> np.ndarray:
        return self.preparation.text(instruction).numpy()

    # Beginning, resuming, changing stage

    def begin(self, initial: dict[str, np.ndarray] | None) -> None:
        torch.manual_seed(self.settings.seed)
        policy = self._new_policy()
        if initial is not None:
            policy.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in initial.items()})
        self.position.stage, _ = stage_at(self.settings, 0.0, self.what.policy.latent.enabled)
        self._build_engine(policy)
        self.belief = self._policy.initial_belief(self.settings.streams // self.world, self.engine.device)
        self._seed_draws()

    def resume(self, folder: Path) -> None:
        self.position = Position(**json.loads((folder / POSITION).read_text(encoding="utf-8")))
        torch.manual_seed(self.settings.seed)
        self._build_engine(self._new_policy())
        state = load_engine(self.engine, folder)
        self.walk.restore(state["walk"])
        mine = torch.load(folder / f"rank_{self.rank}.pt", weights_only=True)
        self.belief = Belief(*(part.to(self.engine.device) for part in mine["belief"]))
        torch.set_rng_state(mine["random"])
        if self.rank == 0:
            print(f"resumed at step {self.position.step} ({self._kind})", flush=True)

    def _seed_draws(self) -> None:
        """Ranks start from equal weights and must then draw different noise."""
        torch.manual_seed(1 + self.settings.seed * 1000 + self.rank)

    def _new_policy(self) -> AvaVlaPolicy:
        policy = AvaVlaPolicy(self.what.policy)
        if self.settings.precision == "bfloat16":
            # Autocast would make a bfloat16 copy of every frozen weight in every forward pass, and keep it.
            for parameter in policy.parameter_groups()["frozen"]:
                parameter.data = parameter.data.bfloat16()
        return policy

    def _build_engine(self, policy: AvaVlaPolicy) -> None:
        parameters = learning_parameters(policy, PARTS[self._kind])
        if self.settings.recompute:
            policy.backbone.model.set_gradient_checkpointing(True)
        objective = CloningObjective(policy, self.settings.smoothness)
        self.engine = initialise_engine(objective, [{"params": parameters, "lr": 0.0}], self.engine_settings)
        self.engine.train()

    @property
    def _kind(self) -> str:
        return self.settings.stages[self.position.stage].kind

    @property
    def _policy(self) -> AvaVlaPolicy:
        return self.engine.module.policy

    def _enter(self, stage: int) -> None:
        """The next stage trains other parts: a fresh engine on a fresh module with the weights of this one."""
        state = full_state(self.engine, everywhere=True)
        assert state is not None
        self.engine.destroy()
        policy = self._new_policy()
        policy.load_state_dict(state)
        self.position.stage = stage
        self._build_engine(policy)
        self._seed_draws()

    # The loop

    def train(self) -> None:
        settings, position = self.settings, self.position
        begun = time.monotonic() - position.elapsed
        total, unit = (settings.steps, "steps") if settings.minutes is None else (round(60 * settings.minutes), "s")
        done = position.step if settings.minutes is None else int(position.elapsed)
        progress = Progress(total or 0, "clone", unit, done=done) if self.rank == 0 else None
        batches = prefetch(self.walk)
        meter = Meter()
        while position.fraction < 1.0:
            asked = time.perf_counter()
            batch, walk_state = next(batches)
            waited = time.perf_counter() - asked
            metrics = self._step(batch)
            position.step += 1
            meter.add(settings.streams * settings.decisions, waited, time.perf_counter() - asked)
            before, position.elapsed = position.fraction, time.monotonic() - begun
            position.fraction = self._agree(used(settings, position.step, position.elapsed))
            if position.step % LOG_EVERY == 0 or position.fraction >= 1.0:
                numbers = {**metrics, **meter.recent(), "fraction": position.fraction}
                self._log({f"train/{name}": value for name, value in numbers.items()})
                if progress is not None:
                    seen = position.step if settings.minutes is None else min(int(position.elapsed), total or 0)
                    notes = {"step": position.step, "l1": numbers["l1"], "decisions/s": numbers["decisions_per_s"]}
                    progress.advance(seen - progress.count, stage=self._kind, **notes, **self.validation)
            stage, _ = stage_at(settings, position.fraction, self.what.policy.latent.enabled)
            changing = stage != position.stage
            if passed(before, position.fraction, settings.validations) or changing:
                self._validate()
            if changing:
                self._enter(stage)
            if passed(before, position.fraction, settings.checkpoints) or changing:
                self._save(walk_state, meter.total())
        batches.close()
        if progress is not None:
            progress.close()
        self.engine.destroy()

    def _agree(self, fraction: float) -> float:
        """Rank 0's clock decides, so that all ranks change stage and stop at the same step."""
        if self.world == 1:
            return fraction
        shared = torch.tensor([fraction], dtype=torch.float64, device=self.engine.device)
        dist.broadcast(shared, src=0)
        return float(shared)

    def _step(self, batch: Batch) -> dict[str, float]:
        settings, position, config = self.settings, self.position, self.what.policy
        stage, done = stage_at(settings, position.fraction, config.latent.enabled)
        warm = self._kind == WARM_UP
        peak = settings.stages[position.stage].learning_rate
        rate = peak * rate_factor(settings, done if stage == position.stage else 1.0)
        set_learning_rates(self.engine, [rate])
        temperature = temperature_at(config.attention, cloned(settings, position.fraction, config.latent.enabled))
        # Every depth at which the gate may stop has to act well, so the warm-up visits them all.
        depth = random.Random(f"{settings.seed}/{position.step}").randint(1, config.latent.max_steps) if warm else 0
        loss, self.belief, metrics = self.engine(
            to_tensors(batch, self.engine.device), self.belief,
            latent_steps=depth, temperature=temperature, sample=warm,
        )  # fmt: skip
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {float(loss)} at step {position.step}: lower the learning rate")
        self.engine.backward(loss)
        self.engine.step()
        shown = {name: float(metrics[name]) for name in ("l1", "smoothness") if name in metrics}
        return {**shown, "loss": float(loss), "learning_rate": rate, "temperature": temperature}

    def _validate(self) -> None:
        """L1 on held-out episodes at depth 0 and, once the loop learns, at full depth."""
        if not self.held_out:
            return
        config = self.what.policy
        depths = [0] + ([config.latent.max_steps] if self._kind == WARM_UP else [])
        self.validation = {}
        for depth in depths:
            errors = held_out_errors(self.engine.module, self.reader, self._tokens, self.held_out, depth)
            name = "val_l1" if depth == depths[-1] else f"val_l1_depth_{depth}"
            self.validation[name] = float(errors.mean())
        details = {f"val/l1_{name}": float(error) for name, error in zip(dimension_names(errors), errors, strict=True)}
        self._log({**{f"val/{key.removeprefix('val_')}": value for key, value in self.validation.items()}, **details})

    def _log(self, metrics: dict[str, float]) -> None:
        if self.run is not None:
            self.run.log_metrics(metrics, step=self.position.step)

    def _save(self, walk_state: dict[str, Any], speed: dict[str, float]) -> None:
        """Engine state and belief of every rank, and the whole policy in our own format, as one Ray checkpoint."""
        import ray.train

        with tempfile.TemporaryDirectory(prefix="cloning-") as temporary:
            folder = Path(temporary)
            save_engine(self.engine, folder, {"walk": walk_state})
            torch.save(
                {"belief": [part.cpu() for part in self.belief], "random": torch.get_rng_state()},
                folder / f"rank_{self.rank}.pt",
            )
            state = full_state(self.engine)
            if state is not None:
                policy = self._new_policy()
                policy.load_state_dict(state)
                save_checkpoint(
                    folder / POLICY, policy, self.statistics, stage="bc", provenance=self.what.provenance,
                    extra={"training": asdict(self.position), "validation": self.validation},
                )  # fmt: skip
                (folder / POSITION).write_text(json.dumps(asdict(self.position)), encoding="utf-8")
            report = {**asdict(self.position), **self.validation, **speed}
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(os.fspath(folder)))
