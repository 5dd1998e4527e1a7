"""The driver of asynchronous PPO as it is, around runners that sleep and a learner that learns nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

import actors.async_ppo
from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.fragment_queue import Lot
from actors.learner_group import Outcome
from actors.runner_group import RunnerGroup
from avavla_ray.policy.config import preset
from benchmarks.scale_cost.sleeping import Pace, Shape, SleepingRunner


class SleepingGroup(RunnerGroup):
    """Seats with sleeping runners in them."""

    def _make_worker(self, *, worker_index: int, **_: Any) -> Any:
        actor: Any = ray.remote(**self._remote_args)(SleepingRunner)
        return actor.remote(worker_index, self._remote_config.pace, self._remote_config.shape)


class Publisher:
    """A learner rank that has weights, and no more."""

    def __init__(self, size: int) -> None:
        self._weights = np.zeros(size, np.float32)

    def weights(self, fragments: Any = None) -> np.ndarray:
        """New ones, since Ray puts what is returned into the object store anew."""
        return self._weights


class NullLearners:
    """What the driver asks of a learner group; an update is over as soon as weights are published."""

    restarts = 0

    def __init__(self, config: Any) -> None:
        self.version, self.pending = 0, list[Any]()
        self.policy_config, self.statistics = preset(config.preset), None
        self._metrics, self._chunk = dict[str, float](), config.pace.chunk
        self._rank: Any = ray.remote(num_cpus=0)(Publisher).remote(config.parameters)

    def __len__(self) -> int:
        return 1

    def weights(self) -> Any:
        reference = self._rank.weights.remote()
        ray.wait([reference])
        return reference

    def update_async(self, lots: list[tuple[Any, int]]) -> None:
        decisions = sum(count for _, count in lots)
        self._metrics = {"update_seconds": 0.0, "decisions": decisions, "env_steps": decisions * self._chunk}
        self.pending = [self._rank.weights.remote()]

    def poll(self) -> Outcome | None:
        if not self.pending or not ray.wait(self.pending, timeout=0)[0]:
            return None
        (reference,), self.pending = self.pending, []
        self.version += 1
        return Outcome(self.version, weights=reference, metrics=self._metrics)

    def get_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        """For RLlib, which looks for RLModules in it."""
        return {COMPONENT_LEARNER: {COMPONENT_RL_MODULE: {}}}

    def shutdown(self) -> None:
        ray.kill(self._rank)


class ScaleConfig(AsyncPPOConfig):
    """A run of sleeping runners.

    Attributes:
        pace, shape: see `SleepingRunner`. preset: whose weights are published. parameters: how many they are.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class or ScaledPPO)
        self.pace, self.preset, self.parameters = Pace(5.0, 0.1), "small", 1
        latent = preset(self.preset).latent
        self.shape = Shape(
            latent.max_steps, latent.width, latent.update_dim, latent.encoding_width, latent.observation_tokens
        )

    def build_learner_group(self, **_: Any) -> Any:
        return NullLearners(self)


class ScaledPPO(AsyncPPO):
    """Counts what is delivered.

    Attributes:
        taken, deliveries: decisions and deliveries so far.
    """

    @classmethod
    def get_default_config(cls) -> ScaleConfig:
        return ScaleConfig()

    def setup(self, config: Any) -> None:
        self.taken = self.deliveries = 0
        stock = actors.async_ppo.RunnerGroup
        actors.async_ppo.RunnerGroup = SleepingGroup  # type: ignore[misc]
        try:
            super().setup(config)
        finally:
            actors.async_ppo.RunnerGroup = stock  # type: ignore[misc]
        self._everyone = dict(self.pool._runners)

    def _start_runner(self, actor: Any, seat: int, incarnation: int) -> Any:
        return actor.start.remote(self.weights)

    def _take(self, lot: Lot) -> None:
        self.taken += lot.report.decisions
        self.deliveries += 1
        super()._take(lot)

    def play_with(self, runners: int) -> list[Any]:
        """Only with so many of the runners from now on, the others having delivered what they were asked for; their
        actors."""
        self.settle()
        self.pool._runners = dict(list(self._everyone.items())[:runners])
        return [runner.actor for runner in self.pool._runners.values()]
