"""Runners as a run has them, and what they reach with a null policy, with the policy, and beside the learner."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.orders import Order
from actors.report import Report
from actors.runner_pool import DEPTH
from actors.weights import WeightHandle
from benchmarks.rollout_cost.processor import Reading, processor_seconds, spent
from benchmarks.rollout_cost.runner import Beats, MeasuredRunner

WARM_S = 0.3  # of every turn, before it counts


@dataclass
class Rate:
    """What the turns of a case came to, all together.

    Attributes:
        seconds: of all turns. decisions: in them. cpu_s: of the processes, in them, by kind.
        turns: decisions a second of each turn. steps_per_decision: environment steps.
    """

    seconds: float = 0.0
    decisions: float = 0.0
    cpu_s: Counter[str] = field(default_factory=Counter)
    turns: list[float] = field(default_factory=list)
    steps_per_decision: float = 8.0

    def add(self, beats: Sequence[Beats], begun: float, ended: float, cpu_s: Counter[str]) -> None:
        """A turn that counts from `begun` to `ended`."""
        self.turns.append(sum(rate_of(of_one, begun, ended) for of_one in beats))
        self.seconds += ended - begun
        self.decisions += self.turns[-1] * (ended - begun)
        self.cpu_s.update(cpu_s)

    @property
    def mean(self) -> float:
        """Decisions a second."""
        return self.decisions / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor time of all processes for a decision."""
        return 1e3 * self.cpu_s.total() / self.decisions

    def cpu_ms_by_kind(self) -> dict[str, float]:
        return {kind: 1e3 * seconds / self.decisions for kind, seconds in self.cpu_s.items()}


def rate_of(beats: Beats, begun: float, ended: float) -> float:
    """Decisions a second of a runner between two times, from its first beat in them to its last: it decides for several
    simulators at once, and a window cuts such a batch off anywhere."""
    inside = [(when, count) for when, count in beats if begun <= when <= ended]
    if len(inside) > 2:
        return sum(count for _, count in inside[1:]) / (inside[-1][0] - inside[0][0])
    return sum(count for _, count in inside) / (ended - begun)


class Fleet:
    """Started runners, with nothing in flight between turns.

    Args:
        actors: of `MeasuredRunner`. weights: that they decide with. decisions: T, of a fragment.
    """

    def __init__(self, actors: list[Any], weights: WeightHandle, decisions: int) -> None:
        self.actors, self.weights, self._decisions = actors, weights, decisions
        self.timings: dict[str, float] = defaultdict(float)  # of the turns with the policy
        self.latent_steps = Counter[str]()
        self._pids = {answer["pid"] for answer in ray.get([actor.hello.remote() for actor in actors])}
        self.land()

    def land(self) -> None:
        """Let every simulator finish what it is at."""
        order, loud = Order(self.weights, 1, lockstep=True), self.actors
        while loud:
            ray.get([self._deliver(actor, order) for actor in loud])
            quiet = ray.get([actor.is_quiet.remote() for actor in loud])
            loud = [actor for actor, done in zip(loud, quiet, strict=True) if not done]
        ray.get([actor.take_beats.remote() for actor in self.actors])

    def simulator_only(self, seconds: float, rate: Rate) -> None:
        """The limit: the same simulators in the same processes with a null policy."""
        calls = [actor.simulate.remote(WARM_S + seconds) for actor in self.actors]
        begun, ended, cpu = self._window(seconds)
        played = ray.get(calls)
        rate.add([beats for beats, _, _ in played], begun, ended, cpu)
        rate.steps_per_decision = sum(steps for _, _, steps in played) / sum(chunks for _, chunks, _ in played)

    def rollout(self, seconds: float, rate: Rate) -> None:
        """Runners with the policy that deliver fragments to a driver which only counts them."""
        order = Order(self.weights, self._decisions)
        self.land()
        waiting = {self._deliver(actor, order): actor for actor in self.actors for _ in range(DEPTH)}
        begun, ended = time.monotonic() + WARM_S, time.monotonic() + WARM_S + seconds
        before: Reading | None = None
        reports: list[Report] = []
        while time.monotonic() < ended:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.05)
            for reference in ready:
                actor = waiting.pop(reference)
                reports.append(ray.get(reference))
                waiting[self._deliver(actor, order)] = actor
            if before is None and time.monotonic() >= begun:
                before, begun = processor_seconds(self._pids), time.monotonic()
        ended, cpu = time.monotonic(), spent(before or {}, processor_seconds(self._pids))
        reports += ray.get(list(waiting))
        beats = ray.get([actor.take_beats.remote() for actor in self.actors])
        self.land()
        rate.add(beats, begun, ended, cpu)
        rate.steps_per_decision = sum(r.env_steps for r in reports) / sum(r.decisions for r in reports)
        self.latent_steps.update(steps=sum(r.latent_steps for r in reports), of=sum(r.decisions for r in reports))
        for report in reports:
            for path, took in report.timings.items():
                self.timings[path] += took

    def rollout_in(self, precision: str, otherwise: str, seconds: float, rate: Rate) -> None:
        """`rollout` with copies of the policy that compute in another precision than `otherwise`."""
        ray.get([actor.decide_in.remote(precision) for actor in self.actors])
        timings, self.timings = self.timings, defaultdict(float)
        self.rollout(seconds, rate)
        self.timings = timings
        ray.get([actor.decide_in.remote(otherwise) for actor in self.actors])

    def with_learner(self, seconds: float, rate: Rate, algorithm: Any) -> dict[str, Any]:
        """Asynchronous PPO: the same runners while the learner updates; the last update's result."""
        result: dict[str, Any] = algorithm.train()
        before, begun = processor_seconds(self._pids), time.monotonic()
        while time.monotonic() < begun + seconds:
            result = algorithm.train()
        ended, cpu = time.monotonic(), spent(before, processor_seconds(self._pids))
        algorithm.settle()
        self.weights = algorithm.weights
        beats = ray.get([actor.take_beats.remote() for actor in self.actors])
        self.land()
        rate.add(beats, begun, ended, cpu)
        return result

    @staticmethod
    def _deliver(actor: Any, order: Order) -> Any:
        return actor.deliver.options(num_returns=2).remote(order)[1]

    def _window(self, seconds: float) -> tuple[float, float, Counter[str]]:
        """Let a turn run: when it began and ended to count, and the processor time in between."""
        time.sleep(WARM_S)
        before, begun = processor_seconds(self._pids), time.monotonic()
        time.sleep(seconds)
        return begun, time.monotonic(), spent(before, processor_seconds(self._pids))


def start_fleet(config: Any, group: Any, weights: WeightHandle, servers: Sequence[Any] = ()) -> Fleet:
    """Runners without a learner.

    Args:
        config: an `AsyncPPOConfig`. group: its learner group, for the policy's configuration and statistics.
        servers: handles of policy servers; none for copies.
    """
    actor: Any = ray.remote(num_cpus=1)(MeasuredRunner)
    count = config.num_env_runners
    actors = [actor.remote(config=config, worker_index=seat + 1, num_workers=count) for seat in range(count)]
    ray.get([
        each.start.remote(
            group.policy_config, group.statistics, weights, name=f"fleet{seat}", incarnation=0, quarantined={},
            servers=servers,
        )
        for seat, each in enumerate(actors)
    ])  # fmt: skip
    return Fleet(actors, weights, config.get_rollout_fragment_length())


def stop_fleet(fleet: Fleet) -> None:
    """End its processes."""
    ray.get([actor.stop.remote() for actor in fleet.actors])
    for actor in fleet.actors:
        ray.kill(actor)
