"""A runner whose simulators only sleep: what a driver sees of one, at the price of a few calls.

Nothing here imports torch, so that a machine with two processors carries the runners of a cluster.
"""

from __future__ import annotations

import heapq
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from actors.orders import Order
from actors.report import Report
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.simulators.base import EpisodeSummary


@dataclass(frozen=True)
class Pace:
    """What sleeping simulators do.

    Attributes:
        step_ms: of an environment step. jitter: deviation of a chunk's time, as a share of it.
        chunk: C, environment steps of a decision. episode: decisions of an episode.
        simulators: of a runner.
    """

    step_ms: float
    jitter: float
    chunk: int = 8
    episode: int = 35
    simulators: int = 32

    @property
    def decisions_per_s(self) -> float:
        """Of a simulator that never waits."""
        return 1e3 / (self.step_ms * self.chunk)


@dataclass(frozen=True)
class Shape:
    """Widths of what a decision leaves behind, see `Fragment`."""

    steps: int
    latent: int
    update: int
    encoding: int
    tokens: int

    def rows(self, decisions: int) -> dict[str, Any]:
        """Arrays of a fragment of so many decisions."""
        T, K, Z = decisions, self.steps, self.latent
        wide = {
            "z": (T, K + 1, Z), "u": (T, K, self.update), "encoding": (T, self.encoding),
            "tokens": (T, self.tokens, Z), "next_z": (T, Z), "reward": (T,),
            **dict.fromkeys(("log_prob", "entropy", "exit_score", "exit_log_prob"), (T, K)),
        }  # fmt: skip
        counts = dict.fromkeys(("steps", "duration", "version", "task", "episode", "decision"), (T,))
        return {
            **{name: np.zeros(shape, np.float32) for name, shape in wide.items()},
            **{name: np.zeros(shape, np.int64) for name, shape in counts.items()},
            **{name: np.zeros(T, bool) for name in ("terminated", "truncated")},
            "group": np.full(T, -1, np.int64),
        }


class SleepingSimulator:
    """Takes as long for a chunk as LIBERO does, and leaves the processor alone meanwhile."""

    def __init__(self, pace: Pace, random: np.random.Generator) -> None:
        self._pace, self._random = pace, random
        self.until = time.monotonic() + self._chunk_s() * random.uniform()  # all of them begin at other times
        self.decisions = 0  # of the fragment in the making
        self.age = int(random.integers(pace.episode))  # of the episode, in decisions

    def begin_chunk(self) -> None:
        self.until = max(self.until, time.monotonic()) + self._chunk_s()

    def _chunk_s(self) -> float:
        pace = self._pace
        return 1e-3 * pace.step_ms * pace.chunk * max(0.1, self._random.normal(1.0, pace.jitter))


class SleepingRunner:
    """Answers as `SimulatorEnvRunner` does, with fragments of the right size in which nothing was decided: its policy
    is the null policy."""

    def __init__(self, seat: int, pace: Pace, shape: Shape) -> None:
        self._seat, self._pace, self._shape = seat, pace, shape
        random = np.random.default_rng(seat)
        self._simulators = [SleepingSimulator(pace, random) for _ in range(pace.simulators)]
        self._due = [(simulator.until, at) for at, simulator in enumerate(self._simulators)]
        heapq.heapify(self._due)
        self._version, self._episodes = -1, 0
        self._weights: Any = None

    def hello(self) -> dict[str, Any]:
        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "host": "", "pid": os.getpid(), "leaving": None}

    def start(self, handle: WeightHandle) -> dict[str, Any]:
        self.pull(handle)
        return {"simulator": "sleeping"}

    def pull(self, handle: WeightHandle) -> float:
        """Get these weights if they are newer; the seconds that it took."""
        begun = time.perf_counter()
        if handle.version > self._version:
            self._weights, self._version = ray.get(handle.reference[0]).copy(), handle.version
        return time.perf_counter() - begun

    def forget(self) -> None:
        """Take whatever weights come next, older ones too."""
        self._version = -1

    def deliver(self, order: Order) -> tuple[list[Fragment], Report]:
        """See `SimulatorEnvRunner.deliver`."""
        begun, report, fragments = time.perf_counter(), Report(order.handle.version), list[Fragment]()
        report.weights_seconds = self.pull(order.handle)
        while not fragments:
            time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
            now = time.monotonic()
            while self._due[0][0] <= now:
                self._finish(self._due[0][1], order, fragments, report)
        report.seconds = time.perf_counter() - begun
        report.decisions = sum(map(len, fragments))
        report.env_steps = self._pace.chunk * report.decisions
        return fragments, report

    def _finish(self, at: int, order: Order, fragments: list[Fragment], report: Report) -> None:
        simulator = self._simulators[at]
        simulator.decisions, simulator.age = simulator.decisions + 1, simulator.age + 1
        over = simulator.age >= self._pace.episode
        if over or simulator.decisions >= order.decisions:
            rows = self._shape.rows(simulator.decisions)
            rows["version"][:], rows["duration"][:], rows["steps"][:] = self._version, self._pace.chunk, 1
            rows["truncated"][-1] = over
            fragments.append(Fragment(**rows, episode_ids=[f"{self._seat}.{self._episodes}"]))
            simulator.decisions = 0
        if over:
            report.finished.append(
                EpisodeSummary(
                    episode_id=f"{self._seat}.{self._episodes}", task=0, initial_state=None, seed=0, success=False,
                    steps=simulator.age * self._pace.chunk, decisions=simulator.age, latent_steps=1.0,
                )
            )  # fmt: skip
            report.returns.append(0.0)
            self._episodes, simulator.age = self._episodes + 1, 0
        simulator.begin_chunk()
        heapq.heapreplace(self._due, (simulator.until, at))

    def stop(self) -> None:
        """Nothing to end."""
