#!/usr/bin/env python
"""Environment steps a second of asynchronous PPO on LIBERO, against its simulators alone and against taking turns.

One set of processes does all of it, in turns, so that whatever else the machine does falls on every case alike:

    simulator only   the runners' simulators with random actions: no policy, no fragments
    rollout          the runners with the policy, delivering fragments
    with learner     asynchronous PPO: the same while the learner updates
    serial           the same work one after the other: all runners sample, then the learner updates, and so on
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import default_workers, run_job
from avavla_ray.files import write_json

LEAVE = 0.4  # share of the samples that leave after a latent step: 2.3 of at most 5 are taken in the mean


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: shorter turns and updates half the size; ends within 45 s on 2 cores.
        json: file for the numbers.
        checkpoint: policy to roll out; fresh weights of `preset` when left out.
        simulators: of each runner. isolate: them in processes of their own.
        update_decisions, minibatch_decisions: of an update, as in ppo_libero.
    """

    quick: bool = False
    json: Path | None = None
    checkpoint: Path | None = None
    preset: str = "small"
    suite: str = "libero_object"
    task: int = 0
    assets: str = "bundled"
    render: Literal["reference", "fast"] = "fast"
    num_runners: int = default_workers()
    simulators: int = 2
    isolate: bool = True
    fragment_decisions: int = 4
    update_decisions: int = 64
    minibatch_decisions: int = 32
    seed: int = 0


def fresh_checkpoint(settings: Settings, folder: Path) -> Path:
    """A policy with random weights, in units in which its actions are small motions."""
    import numpy as np
    import torch

    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.checkpoint import save_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    torch.manual_seed(settings.seed)
    config = preset(settings.preset)
    action, proprio = np.full(config.action_dim, 0.3), np.ones(config.proprio_dim)
    statistics = Statistics(
        "none", FieldStatistics.of(np.stack([-action, action])), FieldStatistics.of(np.stack([-proprio, proprio])),
        episodes=0, steps=0,
    )  # fmt: skip
    save_checkpoint(folder, AvaVlaPolicy(config), statistics, stage="none", provenance={})
    return folder


def play_blindly(runner: Any, seconds: float, chunk: int) -> tuple[int, float]:
    """Random actions in all simulators of an env runner; environment steps and seconds. Runs in its process."""
    import numpy as np

    from avavla_ray.simulators.isolated.side_by_side import begin_chunk, finish_chunk

    simulators = runner.rollout.simulators
    random, steps, start = np.random.default_rng(0), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        shape = (len(simulators), chunk, simulators[0].spec.action_dim)
        chunks = random.uniform(-0.3, 0.3, shape).astype(np.float32)
        for simulator, actions in zip(simulators, chunks, strict=True):
            begin_chunk(simulator, actions)
        for simulator, actions in zip(simulators, chunks, strict=True):
            result = finish_chunk(simulator, actions)
            steps += result.duration
            if result.done:
                simulator.reset(runner.config.simulator.tasks[0], seed=int(random.integers(2**31)))
    return steps, time.perf_counter() - start


class Bench:
    """A running algorithm whose parts are timed; every case returns environment steps a second."""

    def __init__(self, algorithm: Any, chunk: int) -> None:
        self.algorithm, self.chunk = algorithm, chunk
        self.actors = list(algorithm.env_runner_group._worker_manager.actors().values())

    def simulator_only(self, seconds: float) -> float:
        import ray

        chunk = self.chunk
        calls = [actor.apply.remote(lambda runner: play_blindly(runner, seconds, chunk)) for actor in self.actors]
        return sum(steps / taken for steps, taken in ray.get(calls))

    def rollout(self, seconds: float) -> float:
        """Every runner for itself, as fast as it goes: the sum of their rates."""
        import ray

        start, ended = time.perf_counter(), dict[Any, float]()
        steps: dict[Any, int] = defaultdict(int)
        running = {self._sample(actor)[1]: actor for actor in self.actors}
        while running:
            (report,), _ = ray.wait(list(running), num_returns=1)
            actor = running.pop(report)
            steps[actor] += ray.get(report).env_steps
            ended[actor] = time.perf_counter() - start
            if ended[actor] < seconds:
                running[self._sample(actor)[1]] = actor
        return sum(steps[actor] / ended[actor] for actor in self.actors)

    def with_learner(self, seconds: float) -> float:
        """From update to update of a run that is under way."""
        self.algorithm.train()
        start, before = time.perf_counter(), self._sampled()
        while time.perf_counter() - start < seconds:
            self.algorithm.train()
        rate = (self._sampled() - before) / (time.perf_counter() - start)
        self.algorithm.settle()
        return rate

    def serial(self, seconds: float) -> float:
        import ray

        group, start, steps = self.algorithm.learner_group, time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            lots: list[tuple[Any, int]] = []
            while sum(decisions for _, decisions in lots) < self.algorithm.config.update_decisions:
                for fragments, report in [self._sample(actor) for actor in self.actors]:
                    lots.append((fragments, ray.get(report).decisions))
                    steps += ray.get(report).env_steps
            group.update_async(lots)
            ray.wait(group.pending, num_returns=len(group))
            group.poll()
        return steps / (time.perf_counter() - start)

    def _sample(self, actor: Any) -> tuple[Any, Any]:
        from actors.orders import Order

        order = Order(self.algorithm.weights, self.algorithm.config.get_rollout_fragment_length())
        return tuple(actor.deliver.options(num_returns=2).remote(order))

    def _sampled(self) -> float:
        return self.algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0.0)


def main(settings: Settings) -> None:
    import logging
    import os

    begun = time.perf_counter()
    # A cluster of its own: numbers of a shared one would not be this machine's.
    os.environ["RAY_ADDRESS"] = "local"
    from actors.async_ppo_config import AsyncPPOConfig
    from actors.cluster import connect
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.provenance import machine
    from avavla_ray.simulators.base import SimulatorConfig

    if settings.quick:
        settings = replace(
            settings, update_decisions=settings.update_decisions // 2,
            minibatch_decisions=settings.minibatch_decisions // 2,
        )  # fmt: skip
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    connect(cpus=settings.num_runners + 1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = settings.checkpoint or fresh_checkpoint(settings, Path(folder) / "checkpoint")
        policy = load_checkpoint(checkpoint).policy.config
        simulator = SimulatorConfig(
            suite=settings.suite, tasks=(settings.task,), assets=settings.assets, render=settings.render,
            image_size=policy.backbone.camera_size,
        )  # fmt: skip
        config = (
            AsyncPPOConfig()
            .env_runners(
                num_env_runners=settings.num_runners, num_envs_per_env_runner=settings.simulators,
                rollout_fragment_length=settings.fragment_decisions,
            )
            .debugging(seed=settings.seed)
            .training(
                checkpoint=str(checkpoint), simulator=simulator, max_lag=1000, isolate=settings.isolate,
                update_decisions=settings.update_decisions, minibatch_decisions=settings.minibatch_decisions,
            )
        )  # fmt: skip
        algorithm = config.build_algo()
    algorithm.train()  # starts simulators, compiles what is compiled at first use
    algorithm.settle()
    print(f"simulators, runners and learner ready after {time.perf_counter() - begun:.0f} s", flush=True)
    bench = Bench(algorithm, policy.chunk)
    cases = {name: getattr(bench, name) for name in ("simulator_only", "rollout", "with_learner", "serial")}
    seconds, rounds = (1.0, 2) if settings.quick else (15.0, 5)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, case in cases.items():
            rates[name].append(case(seconds))
        print(f"turn {turn + 1} of {rounds} done after {time.perf_counter() - begun:.0f} s", flush=True)
    algorithm.stop()
    mean = {name: sum(values) / rounds for name, values in rates.items()}
    result = {
        "share_of_simulator_only": mean["rollout"] / mean["simulator_only"],
        "share_with_learner": mean["with_learner"] / mean["simulator_only"],
        "speedup_vs_serial": mean["with_learner"] / mean["serial"],
        **{f"cpu_ms_per_decision_{name}.{kind}": ms for name, rate in
           (("simulator_only", only), ("rollout", rollout), ("with_learner", learning))
           for kind, ms in rate.cpu_ms_by_kind().items()},
        **{f"env_steps_per_s_{name}": rate for name, rate in mean.items()},
        "num_runners": settings.num_runners, "simulators": settings.simulators,
        "isolate": settings.isolate,
        "update_decisions": settings.update_decisions, "suite": settings.suite, "assets": settings.assets,
        "render": settings.render, "preset": policy.preset, "machine": machine(),
    }  # fmt: skip
    for name, value in result.items():
        print(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}")
    if settings.json is not None:
        write_json(settings.json, result)


if __name__ == "__main__":
    run_job(main, Settings)
