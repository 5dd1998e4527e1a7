"""One DeepSpeed rank of the PPO learner."""

from __future__ import annotations

import math
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from torch import Tensor

from actors.batch import Batch, explained_variance, make_batch
from actors.cloning_stream import CloningStream, Demonstrations
from actors.objective import PPOObjective
from actors.rollback import Rollback
from actors.settings import PPOSettings
from actors.successes import Successes
from actors.update_meter import UpdateMeter
from avavla_ray.learning.fragment import Fragment
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import WeightBuffer, flatten, load_flat
from avavla_ray.timing import span, switch, take_seconds
from avavla_ray.training.devices import keep_to_given_gpus
from avavla_ray.training.engine import (
    EngineSettings,
    full_state,
    initialise_engine,
    load_engine,
    save_engine,
    set_learning_rates,
)
from avavla_ray.training.engine_shares import masters

EngineFiles = dict[str, np.ndarray]


@dataclass(frozen=True)
class Update:
    """An update that went through; metrics are over all ranks."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Refusal:
    """An update that was not made; weights and optimizer are as before it."""

    reason: str


class Learner:
    """An actor with a copy, or a shard, of policy and optimizer. Methods marked collective go to all ranks together."""

    def __init__(
        self,
        settings: PPOSettings,
        engine: EngineSettings,
        policy: PolicyConfig,
        statistics: Statistics,
        rank: int,
        world: int,
        *,
        threads: int = 1,
        seed: int = 0,
        demonstrations: Demonstrations | None = None,
        profile: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        switch(profile)
        self._settings, self._engine_settings = settings, engine
        self._policy_config, self._statistics = policy, statistics
        self._rank, self._world, self._seed = rank, world, seed
        self._demonstrations = demonstrations

    def address(self) -> tuple[str, int]:
        """Host and a free port of this rank's machine, where the ranks can meet."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, host: str, port: int, weights: WeightBuffer) -> None:
        """Build the engine around `weights`. Collective.

        Raises:
            InputError: demonstrations that do not go with the policy.
        """
        keep_to_given_gpus()
        os.environ.update(
            # Ray shows each rank the GPU that it was given and no other, which is then its first.
            RANK=str(self._rank), WORLD_SIZE=str(self._world), LOCAL_RANK="0",
            MASTER_ADDR=host, MASTER_PORT=str(port),
        )  # fmt: skip
        policy = AvaVlaPolicy(self._policy_config).eval()
        load_flat(policy, weights)
        self._index = weights.index
        # Such an engine steps a parameter that had no part in the loss with the gradient of an earlier one.
        self._whole = self._engine_settings.zero_stage == 3 or self._engine_settings.offload != "none"
        self._objective = PPOObjective(policy, self._settings)
        groups = self._objective.optimizer_groups(cloning=self._demonstrations is not None)
        self._rates = [group["lr"] for group in groups]
        self._engine = initialise_engine(self._objective, groups, self._engine_settings)
        self._successes: Successes | None = None
        if self._settings.imitation_weight:
            latent = self._policy_config.latent
            self._successes = Successes(
                self._settings.imitation_decisions, max(1, self._settings.imitation_streams // self._world),
                latent.max_steps if latent.enabled else 0,
                seed=(self._seed, 4, self._rank), depth_seed=(self._seed, 5), device=self._engine.device,
            )  # fmt: skip
        self._stream = None
        if self._demonstrations is not None:
            self._stream = CloningStream(
                self._demonstrations, policy, self._statistics, self._settings,
                rank=self._rank, world=self._world, seed=self._seed, device=self._engine.device,
            )  # fmt: skip

    def update(self, share: list[Any], version: int, done: int) -> tuple[WeightBuffer | None, Update | Refusal]:
        """Learn from this rank's share of fragments: the epochs of one PPO update. Collective.

        Args:
            share: references of lists of fragments. version: of the weights that this update starts from.
            done: updates before this one, which schedules go by; versions also go on when ranks are replaced.

        Returns:
            The new weights at rank 0 (None elsewhere, and after a refusal), and what came of the update.
        """
        start = time.perf_counter()
        with span("fetching"):
            fragments = _fetch(share)
        if not self._all_agree(bool(fragments)):
            return None, Refusal("fragments were lost with the machine that held them")
        if self._successes is not None:
            with span("successes"):
                self._successes.settle(self._told_by_all(self._successes.see(fragments)))
        with span("batch"):
            batch, sums = make_batch(
                fragments, self._objective.policy, self._settings, self._sum,
                look=lambda part: self._engine(part, look=True, whole=self._whole), parts=self._parts(fragments),
            )  # fmt: skip
            rollback = Rollback(self._engine)
            walk = None if self._stream is None else self._stream.state()
            facts = self._facts(fragments, sums, version)
        refusal, meter = self._learn(batch, version, done, facts["explained_variance"])
        if refusal is not None:
            rollback.restore()
            if self._stream is not None and walk is not None:
                self._stream.restore(walk)
            if self._successes is not None:
                self._successes.restart()
            return None, Refusal(refusal)
        means = {name: total / self._world for name, total in self._totals(meter.means()).items()}
        with span("publishing"):
            weights = self.weights()
        seconds = {"update_seconds": time.perf_counter() - start}
        spent = {f"profile/{path}": value for path, value in take_seconds("learner").items()}
        return weights, Update({**facts, **means, **meter.counts(), **seconds, **spent})

    def weights(self) -> WeightBuffer | None:
        """The whole policy as one flat buffer at rank 0. Collective."""
        if self._engine.zero_optimization_stage() < 3:
            return flatten(self._objective.policy) if self._rank == 0 else None
        state = full_state(self._engine)
        if state is None:
            return None
        parts = [state[name].reshape(-1).numpy() for name, _ in self._index]
        return WeightBuffer(np.concatenate(parts), self._index)

    def save(self) -> EngineFiles:
        """This rank's engine state as files: relative path -> bytes. Collective."""
        with tempfile.TemporaryDirectory() as folder:
            save_engine(self._engine, folder)
            root = Path(folder)
            if self._stream is not None:
                torch.save(self._stream.state(), root / self._stream_file)
            files = [path for path in sorted(root.rglob("*")) if path.is_file()]
            return {str(path.relative_to(root)): np.fromfile(path, np.uint8) for path in files}

    def load(self, shares: list[Any]) -> None:
        """Restore what `save` returned on all ranks (references). Collective.

        Raises:
            InputError: saved by another number of ranks, at another ZeRO stage, or from another policy.
        """
        with tempfile.TemporaryDirectory() as folder:
            for share in ray.get(shares):
                for name, content in share.items():
                    path = Path(folder) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content.tofile(path)
            load_engine(self._engine, folder)
            saved = Path(folder) / self._stream_file
            if self._stream is not None and saved.is_file():
                self._stream.restore(torch.load(saved, weights_only=True))

    @property
    def _stream_file(self) -> str:
        return f"cloning_stream_{self._rank}.pt"

    # An update

    def _learn(
        self, batch: Batch, version: int, done: int, explained_variance: float
    ) -> tuple[str | None, UpdateMeter]:
        """All epochs of an update. Once the policy has moved by `target_kl`, only critic and gate go on.

        Returns:
            Why the update must be refused (agreed on by all ranks), and what the steps reported.
        """
        settings, engine, meter = self._settings, self._engine, UpdateMeter()
        # Equal counts on every rank, or the collectives fall out of step, however unevenly whole lots were dealt out.
        total = int(self._sum(torch.tensor(batch.decisions)))
        count = max(1, total // settings.minibatch_decisions)
        weight = settings.demonstration_weight_at(done)
        train_policy, demonstration, imitation = True, None, None
        successes = self._successes
        if not self._all_agree(successes is not None and len(successes) > 0):
            successes = None
        train_gate = settings.train_gate and explained_variance >= settings.gate_min_explained_variance
        torch.manual_seed(int(np.random.SeedSequence([self._seed, self._rank, version]).generate_state(1)[0]))
        rates = self._rates_at(done)
        set_learning_rates(engine, rates)
        for epoch in range(settings.epochs):
            for rows in _minibatches(batch.decisions, count):
                minibatch = batch.rows(rows.to(batch.steps.device))
                if train_policy:
                    with span("demonstrations"):
                        demonstration = None if self._stream is None else self._stream.next(weight)
                    with span("successes"):
                        imitation = None if successes is None else successes.next()
                    with span("forward"):
                        loss, parts, beliefs = engine(
                            minibatch, demonstration, imitation, train_gate=train_gate, whole=self._whole
                        )
                    moved = float(self._sum(parts["kl"].double())) / self._world
                    meter.see_kl(moved)
                    if not math.isfinite(moved):
                        return f"the policy's divergence is {moved} in epoch {epoch + 1}", meter
                    train_policy = moved <= settings.target_kl
                    if self._stream is not None:
                        self._stream.belief = beliefs["demonstration"]
                    if successes is not None:
                        successes.belief = beliefs["imitation"]
                if not train_policy:
                    # Momentum alone would carry the policy, and exits that are drawn, on.
                    set_learning_rates(engine, self._held(rates))
                    with span("forward"):
                        loss, parts, _ = engine(
                            minibatch, demonstration, train_policy=False, train_gate=train_gate, whole=self._whole
                        )
                if not self._all_agree(bool(loss.isfinite())):
                    return f"the loss is {_worst(parts)} in epoch {epoch + 1}", meter
                with span("backward"):
                    engine.backward(loss)
                with span("step"):
                    engine.step()
                meter.add(parts)
        return self._check_weights(), meter

    def _parts(self, fragments: list[Fragment]) -> int:
        """That decisions are looked at in: of a minibatch's size at the rank with most of them."""
        mine = math.ceil(sum(map(len, fragments)) / self._settings.minibatch_decisions)
        return -int(self._least(torch.tensor(-mine)))

    def _rates_at(self, done: int) -> list[float]:
        """Learning rates of policy, critic and gate."""
        pace, exits = self._settings.pace(done), self._settings.exit_actions
        policy, critic, *gate = self._rates
        return [pace * policy, critic, *(pace * rate if exits else rate for rate in gate)]

    def _held(self, rates: list[float]) -> list[float]:
        """Those once the policy has moved enough."""
        _, critic, *gate = rates
        return [0.0, critic, *(0.0 if self._settings.exit_actions else rate for rate in gate)]

    def _check_weights(self) -> str | None:
        """A finite loss can still have had a gradient that is not."""
        finite = all(bool(master.isfinite().all()) for master in masters(self._engine))
        return None if self._all_agree(finite) else "the gradient was not finite"

    def _facts(self, fragments: list[Fragment], sums: dict[str, Tensor], version: int) -> dict[str, float]:
        """What the fragments of all ranks are like."""
        versions = np.concatenate([fragment.version for fragment in fragments])
        sums["lag"] = torch.tensor(float((version - versions).sum()))
        totals = self._totals({name: float(value) for name, value in sums.items()})
        decisions = totals["decisions"]
        return {
            "explained_variance": explained_variance(totals),
            "entropy": totals["entropy"] / max(1.0, totals["latent_steps"]),
            "reward_per_decision": totals["reward"] / decisions, "lag": totals["lag"] / decisions,
            "latent_steps": totals["latent_steps"] / decisions, "decisions": decisions,
            "env_steps": totals["env_steps"],
        }  # fmt: skip

    def _totals(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over ranks, which all have the same names."""
        names = sorted(values)
        totals = self._sum(torch.tensor([values[name] for name in names], dtype=torch.float64))
        return dict(zip(names, totals.tolist(), strict=True))

    # Agreement over ranks

    def _sum(self, values: Tensor) -> Tensor:
        total = values.to(self._engine.device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def _least(self, value: Tensor) -> Tensor:
        least = value.to(self._engine.device, copy=True)
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        return least.to(value.device)

    def _told_by_all(self, mine: dict[str, bool]) -> dict[str, bool]:
        """What any rank knows: the pieces of an episode may have come to several."""
        told: list[dict[str, bool]] = [{} for _ in range(self._world)]
        dist.all_gather_object(told, mine)
        return {name: success for each in told for name, success in each.items()}

    def _all_agree(self, yes: bool) -> bool:
        return bool(self._least(torch.tensor(int(yes))))


def _fetch(share: list[Any]) -> list[Fragment]:
    """The fragments behind the references; none where some are gone for good."""
    try:
        return [fragment for lot in ray.get(share) for fragment in lot]
    except ray.exceptions.ObjectLostError as error:
        print(f"learner: {type(error).__name__}", flush=True)
        return []


def _minibatches(decisions: int, count: int) -> tuple[Tensor, ...]:
    """Rows of so many minibatches, drawn; whoever has fewer decisions takes some of them more than once."""
    return torch.randperm(decisions).repeat(-(-count // decisions)).tensor_split(count)


def _worst(parts: dict[str, Tensor]) -> str:
    """Names the parts of the loss that are not finite."""
    bad = [name for name, value in parts.items() if not bool(torch.isfinite(value))]
    return f"not finite ({', '.join(bad) or 'on another rank'})"
