"""One stage of behaviour cloning: a DeepSpeed engine over what learns in it, its steps, and its weights.

Letters: B streams of this worker, T decisions, K latent steps, U update-action width.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from avavla_ray.demonstrations.windows import Batch
from avavla_ray.policy.attention import temperature_at
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief
from avavla_ray.training.budget import rate_factor
from avavla_ray.training.engine import EngineSettings, full_state, initialise_engine, release, set_learning_rates
from avavla_ray.training.engine_state import load_optimizer_state, optimizer_state
from avavla_ray.training.exit_objective import ExitObjective
from avavla_ray.training.objective import CloningObjective, learning_parameters, to_tensors
from avavla_ray.training.settings import CALIBRATION, CLONING, WARM_UP, CloningSettings
from avavla_ray.training.stages import PARTS
from avavla_ray.training.weight_average import WeightAverage

PREFIX = "policy."
RAW = ".raw"  # marks a learning parameter's own value, where the policy's files hold its average


class StageRun:
    """Trains `policy` in stage `index` of the settings, on this worker's share of the streams.

    What a step learns depends on the seed and the step alone, not on the number of workers or micro-batches.
    """

    def __init__(
        self, policy: AvaVlaPolicy, settings: CloningSettings, index: int, *, rank: int = 0, world: int = 1
    ) -> None:
        self.settings, self.rank, self.world = settings, rank, world
        self.stage = settings.stages[index]
        self.config: PolicyConfig = policy.config
        self._replicas = world * settings.accumulation
        parameters = learning_parameters(policy, PARTS[self.stage.kind])
        if settings.recompute:
            policy.backbone.model.set_gradient_checkpointing(True)
        shares = {"replicas": self._replicas, "streams": settings.streams}
        objective: torch.nn.Module
        if self.stage.kind == CALIBRATION:
            objective = ExitObjective(
                policy, settings.exit_target, settings.exit_delta, settings.exit_lookahead, **shares
            )
        else:
            objective = CloningObjective(policy, settings.smoothness, **shares)
        groups = [{"params": parameters, "lr": 0.0}]
        self.engine: Any = initialise_engine(objective, groups, engine_settings(settings, world))
        self.engine.train()
        # Names of the parameters that learn, as the policy's state dict has them.
        named = self.engine.module.named_parameters()
        self.learning = [name.removeprefix(PREFIX) for name, each in named if each.requires_grad]
        self._average = WeightAverage(self.engine, settings.average) if settings.average else None

    @property
    def policy(self) -> AvaVlaPolicy:
        """The policy as it learns, wherever the engine keeps its parts."""
        return self.engine.module.policy

    @property
    def depth(self) -> int:
        """Latent steps that this stage's results act with: validation's."""
        return 0 if self.stage.kind == CLONING else self.config.latent.max_steps

    def step(
        self, batch: Batch, belief: Belief, *, step: int, done: float, cloned: float, mine: range
    ) -> tuple[Belief, dict[str, float]]:
        """One optimizer step over a batch; collective.

        Args:
            belief: of this worker's streams before it. step: number of the step in the whole run.
            done: share of the stage that is done. cloned: share of all cloning that is. mine: this worker's streams.

        Returns:
            Their belief after it; metrics over all workers.

        Raises:
            FloatingPointError: the loss is not finite; on every worker alike.
        """
        settings, device = self.settings, self.engine.device
        rate = self.stage.learning_rate * rate_factor(settings, done)
        set_learning_rates(self.engine, [rate])
        temperature = temperature_at(self.config.attention, cloned)
        # What the layers draw for themselves (dropout) is the only thing that differs between numbers of workers.
        torch.manual_seed(hash((settings.seed, step, self.rank)) & 0x7FFFFFFF)
        options: dict[str, Any] = {"temperature": temperature}
        noise = None
        if not self._calibrating:
            options["latent_steps"] = depth = self._depth(step)
            noise = self._noise(step, depth, mine, device) if depth else None
        tensors = to_tensors(batch, device)
        parts: list[Tensor] = []
        after = [torch.empty_like(part) for part in belief]
        sums: dict[str, Tensor] = {}
        for rows in _micro_batches(len(mine), settings.accumulation):
            micro = {name: value if name == "counts" else value[rows] for name, value in tensors.items()}
            if noise is not None:
                options["noise"] = noise[rows]
            loss, left, metrics = self.engine(micro, Belief(*(part[rows] for part in belief)), **options)
            self.engine.backward(loss)
            self.engine.step()
            for part, value in zip(after, left, strict=True):
                part[rows] = value
            parts.append(loss.detach())
            for name in self.engine.module.SHARED_METRICS & metrics.keys():
                sums[name] = sums.get(name, 0) + metrics[name]
        if self._average is not None:
            self._average.update()
        shown = self._over_workers({"loss": torch.stack(parts).sum(), **sums})
        if not all(map(math.isfinite, shown.values())):
            raise FloatingPointError(
                f"the loss became {shown['loss']} at step {step}: begin with a lower learning rate, in another --output"
            )
        return Belief(*after), {**shown, "learning_rate": rate, "temperature": temperature}

    @property
    def _calibrating(self) -> bool:
        return self.stage.kind == CALIBRATION

    def _depth(self, step: int) -> int:
        """Every depth at which the gate may stop has to act well, so the warm-up visits them all."""
        if self.stage.kind != WARM_UP:
            return 0
        return random.Random(f"{self.settings.seed}/{step}").randint(1, self.config.latent.max_steps)

    def _noise(self, step: int, depth: int, mine: range, device: torch.device) -> Tensor:
        """(B, T, K, U): this worker's rows of what all streams draw."""
        settings = self.settings
        generator = torch.Generator().manual_seed(hash((settings.seed, step)) & 0x7FFFFFFF)
        shape = (settings.streams, settings.decisions, depth, self.config.latent.update_dim)
        return torch.randn(shape, generator=generator)[list(mine)].to(device)

    def _over_workers(self, shares: dict[str, Tensor]) -> dict[str, float]:
        """Sums of what workers and micro-batches contributed, as means over all streams."""
        packed = torch.stack([value.detach().double() for value in shares.values()])
        if self.world > 1:
            dist.all_reduce(packed)
        return dict(zip(shares, (packed / self._replicas).tolist(), strict=True))

    # Weights

    @contextlib.contextmanager
    def result(self) -> Iterator[CloningObjective]:
        """Inside, the engine's module holds what the stage has come to, the averaged weights if there are any; yields
        the error of its actions. Collective."""
        module = self.engine.module
        with self._average.swapped() if self._average is not None else contextlib.nullcontext():
            yield module if isinstance(module, CloningObjective) else module.actions

    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor] | None:
        """State dict of the stage's result, each tensor in its own type; at rank 0 only, or everywhere. Collective."""
        with self.result():
            return full_state(self.engine, PREFIX, everywhere=everywhere, dtype=None)

    def learner(self) -> Iterator[tuple[str, Tensor]]:
        """What resuming needs beyond the result: optimizer state, and raw weights beside averaged ones. Collective;
        yields at rank 0 only, and has to be exhausted by all."""
        yield from optimizer_state(self.engine, PREFIX)
        if self._average is None:
            return
        state = full_state(self.engine, PREFIX, dtype=None)
        if state is not None:
            for name in self.learning:
                yield name + RAW, state[name]

    @property
    def averaged(self) -> int:
        """Steps that the averaged weights have taken in."""
        return 0 if self._average is None else self._average.count

    def load_learner(self, read: Callable[[str], Tensor], average: Callable[[str], Tensor], averaged: int) -> None:
        """Continue from what `learner` yielded; the module holds the raw weights already. Collective.

        Args:
            read: a tensor by the name that it was yielded under. average: a weight of the result by its name.
            averaged: steps that the average has taken in.
        """
        load_optimizer_state(self.engine, read, PREFIX)
        if self._average is not None:
            self._average.load(average, PREFIX)
            self._average.count = averaged

    def close(self) -> None:
        """Free the memory of everything that it trained; of no use afterwards."""
        self._average = None
        release(self.engine)


def engine_settings(settings: CloningSettings, world: int) -> EngineSettings:
    """Of the engine of any stage."""
    return EngineSettings(
        zero_stage=settings.sharding(world), offload=settings.offload, gradient_clip=settings.gradient_clip,
        accumulation=settings.accumulation, precision=settings.precision, weight_decay=settings.weight_decay,
    )  # fmt: skip


def _micro_batches(rows: int, count: int) -> list[slice]:
    """Rows of each, as slices: what they take is not copied."""
    return [slice(first, rows, count) for first in range(count)]
