"""The baseline: one process that steps its simulators one after the other, decides, and trains, each in its turn."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
import torch

from actors.learner import Learner
from actors.orders import Order
from actors.placement import PolicyCopy
from actors.rollout import Rollout
from actors.settings import PPOSettings
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.checkpoint import load_checkpoint
from avavla_ray.policy.weights import flatten
from benchmarks.rollout_cost.stock import make_stock


class SerialLoop:
    """As published implementations train in simulation: stock LIBERO, rendered at every step, in the process that
    trains. It decides and learns with the code of our runners and learners, on all processors.

    Args:
        config: an `AsyncPPOConfig`. simulators: that it steps.
    """

    def __init__(self, config: Any, checkpoint: str, simulators: int) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        loaded = load_checkpoint(checkpoint)
        statistics = loaded.statistics_of(None)
        settings = self._settings = PPOSettings.of(config)
        self._rollout = Rollout(
            PolicyCopy(loaded.policy.eval(), statistics, version=0), make_stock, config.simulator,
            simulators=simulators, buffers=1, name="serial",
        )  # fmt: skip
        threads = torch.get_num_threads()
        self._learner = Learner(settings, config.engine, loaded.policy.config, statistics, 0, 1, threads=threads)
        self._learner.start(*self._learner.address(), flatten(loaded.policy))
        self._fragments: list[Fragment] = []
        self._played = [0.0, 0.0, 0.0]  # seconds, environment steps, decisions
        self._updates: list[float] = []

    def ready(self) -> int:
        return os.getpid()

    def turn(self, seconds: float) -> None:
        """Play for about so long, then learn once from an update's worth of decisions."""
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            fragments, report = self._rollout.deliver(Order(WeightHandle(0, ()), 1, lockstep=True))
            self._fragments += fragments
            self._played[1] += report.env_steps
            self._played[2] += report.decisions
        self._played[0] += time.perf_counter() - begun
        wanted = self._settings.update_decisions
        # A turn is shorter than an update's worth of playing: the same decisions are learned from several times.
        enough = (self._fragments * -(-wanted // sum(map(len, self._fragments))))[-wanted:]
        share = [ray.put(enough)]
        begun = time.perf_counter()
        self._learner.update(share, 0, 0)
        self._updates.append(time.perf_counter() - begun)
        self._fragments = self._fragments[-wanted:]

    def env_steps_per_s(self) -> dict[str, float]:
        """Of playing and learning in turn, over all turns; and of playing alone."""
        seconds, steps, decisions = self._played
        update = sum(self._updates) / len(self._updates)
        learning = update / self._settings.update_decisions * decisions
        return {"serial": steps / (seconds + learning), "serial_without_updates": steps / seconds}
