#!/usr/bin/env python
"""Decisions a second of asynchronous PPO on LIBERO: against its simulators alone, and against a loop in one process.

One set of processes plays the first three in turns with the fourth, so that whatever else the machine does falls on all
alike:

    simulator only   the runners' simulators with a null policy: the limit
    rollout          the runners with the policy, delivering fragments
    with learner     asynchronous PPO: the same while the learner updates
    serial           stock LIBERO, rendered at every step, its simulators one after the other in the process that trains

In full also, without learner: other numbers of runners and simulators, with and without double buffering, and a policy
server instead of copies.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from avavla_ray.command_line import default_workers, run_job
from avavla_ray.files import write_json, write_text

LEAVE = 0.4  # share of the samples that leave after a latent step: 2.3 of at most 5 are taken in the mean


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: shorter turns, fewer simulators, small updates, no table; ends within 45 s on 2 cores.
        json: file for the numbers. markdown: for the table and the timing tree.
        checkpoint: policy to roll out, exits being drawn from its gate; by default random weights of `preset` with a
            gate that says 0.4 to everything, which makes 2.3 latent steps a decision, as the paper's have.
        rollout_precision: that the backbone decides in; in full, float32 rollouts are also compared with bfloat16.
        simulators: of each runner. buffers: parts of them that are decided for in turn. isolate: them in processes of
            their own.
        serial_simulators: of the serial loop.
        fragment_decisions, update_decisions, minibatch_decisions: as in ppo_libero.
        seconds: of a turn. rounds: turns of each case. layouts: the table of others too, if not `quick`.
    """

    quick: bool = False
    json: Path | None = None
    markdown: Path | None = None
    checkpoint: Path | None = None
    preset: str = "small"
    rollout_precision: Literal["float32", "bfloat16"] = "float32"
    suite: str = "libero_object"
    task: int = 0
    assets: str = "bundled"
    render: Literal["reference", "fast"] = "fast"
    num_runners: int = default_workers()
    simulators: int = 16
    buffers: int = 1
    serial_simulators: int = 4
    isolate: bool = True
    fragment_decisions: int = 16
    update_decisions: int = 512
    minibatch_decisions: int = 64
    seconds: float = 12.0
    rounds: int = 5
    layouts: bool = True
    seed: int = 0


def quickly(settings: Settings) -> Settings:
    return replace(
        settings, simulators=min(settings.simulators, 4), serial_simulators=1, seconds=1.2, rounds=2,
        fragment_decisions=4, update_decisions=32, minibatch_decisions=16,
    )  # fmt: skip


def make_checkpoint(settings: Settings, folder: Path) -> Path:
    """A policy with random weights, in units in which its actions are small motions."""
    import numpy as np
    import torch

    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.checkpoint import save_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    torch.manual_seed(settings.seed)
    policy = AvaVlaPolicy(preset(settings.preset))
    if policy.loop is not None:
        torch.nn.init.constant_(policy.loop.exit_gate.leave[1].bias, math.log(LEAVE / (1 - LEAVE)))
    action, proprio = np.full(policy.config.action_dim, 0.3), np.ones(policy.config.proprio_dim)
    statistics = Statistics(
        "none", FieldStatistics.of(np.stack([-action, action])), FieldStatistics.of(np.stack([-proprio, proprio])),
        episodes=0, steps=0,
    )  # fmt: skip
    save_checkpoint(folder, policy, statistics, stage="none", provenance={})
    return folder


def make_config(settings: Settings, checkpoint: Path) -> Any:
    """A run's configuration. Its processes time what they do, which costs them next to nothing."""
    from actors.async_ppo_config import AsyncPPOConfig
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.simulators.base import SimulatorConfig
    from benchmarks.rollout_cost.runner import MeasuredRunner

    size = load_checkpoint(checkpoint).policy.config.backbone.camera_size
    simulator = SimulatorConfig(
        suite=settings.suite, tasks=(settings.task,), assets=settings.assets, render=settings.render, image_size=size
    )
    return (
        AsyncPPOConfig()
        .env_runners(
            env_runner_cls=MeasuredRunner, num_env_runners=settings.num_runners,
            num_envs_per_env_runner=settings.simulators, rollout_fragment_length=settings.fragment_decisions,
        )
        .debugging(seed=settings.seed)
        .training(
            checkpoint=str(checkpoint), simulator=simulator, max_lag=1000, isolate=settings.isolate,
            buffers=settings.buffers, update_decisions=settings.update_decisions,
            minibatch_decisions=settings.minibatch_decisions, min_env_runners=settings.num_runners,
            idle_release_s=None, profile=True, exit_actions=True, rollout_precision=settings.rollout_precision,
        )
    )  # fmt: skip


def measure(settings: Settings, checkpoint: Path) -> tuple[dict[str, Any], str]:
    """The numbers as one flat object; the table and the timing tree as text."""
    import ray

    from actors.metrics import PROFILE, flat
    from avavla_ray.evaluation.timing_tree import describe, kinds, shares
    from benchmarks.rollout_cost.fleet import Fleet, Rate
    from benchmarks.rollout_cost.serial import SerialLoop
    from benchmarks.rollout_cost.variants import measure_variants, table

    begun = time.perf_counter()
    config = make_config(settings, checkpoint)
    serial: Any = ray.remote(num_cpus=1)(SerialLoop).remote(config, str(checkpoint), settings.serial_simulators)
    serial_ready = serial.ready.remote()
    algorithm: Any = config.build_algo()
    result = algorithm.train()  # starts the runners, and compiles what is compiled at first use
    algorithm.settle()
    seats = algorithm.env_runner_group
    fleet = Fleet([seats.actor(seat) for seat in seats.seats], algorithm.weights, settings.fragment_decisions)
    ray.get(serial_ready)
    print(f"simulators, runners and learner ready after {time.perf_counter() - begun:.0f} s", flush=True)
    rates = {name: Rate() for name in ("simulator_only", "rollout", "with_learner")}
    lower = Rate()
    for turn in range(settings.rounds):
        fleet.simulator_only(settings.seconds, rates["simulator_only"])
        fleet.rollout(settings.seconds, rates["rollout"])
        if not settings.quick and settings.rollout_precision == "float32":
            fleet.rollout_in("bfloat16", "float32", settings.seconds, lower)
        result = fleet.with_learner(settings.seconds, rates["with_learner"], algorithm)
        ray.get(serial.turn.remote(settings.seconds))
        print(f"turn {turn + 1} of {settings.rounds} done after {time.perf_counter() - begun:.0f} s", flush=True)
    loop = ray.get(serial.env_steps_per_s.remote())
    numbers = numbers_of(rates, loop) | {"latent_steps": fleet.latent_steps["steps"] / fleet.latent_steps["of"]}
    if lower.decisions:
        numbers |= {
            "share_of_simulator_only_bfloat16": lower.mean / rates["simulator_only"].mean,
            "cpu_share_of_simulator_only_bfloat16": rates["simulator_only"].cpu_ms / lower.cpu_ms,
        }
    profile = {name.removeprefix(f"{PROFILE}/"): value for name, value in flat(result).items() if PROFILE in name}
    timings = fleet.timings | {path: value for path, value in profile.items() if path.startswith("learner")}
    for kind in kinds(timings):
        for path, share in shares(timings, kind).items():
            numbers[f"time.{kind}.{path.replace('/', '.')}"] = share
    group, newest = algorithm.learner_group, algorithm.weights
    weights = replace(newest, reference=(ray.put(ray.get(newest.reference[0])),))  # which outlive the learner
    algorithm.stop()
    ray.kill(serial)
    variants = [] if settings.quick or not settings.layouts else measure_variants(config, group, weights, settings)
    for variant in variants:
        numbers |= variant.flat()
    return numbers, f"{table(variants)}\n{describe(timings)}" if variants else describe(timings)


def numbers_of(rates: dict[str, Any], loop: dict[str, float]) -> dict[str, float]:
    """The headline numbers, of the three cases by name and of the serial loop."""
    only, rollout, learning = (rates[name] for name in ("simulator_only", "rollout", "with_learner"))
    steps = {name: rate.mean * rate.steps_per_decision for name, rate in rates.items()} | loop
    return {
        "share_of_simulator_only": rollout.mean / only.mean,
        "share_with_learner": learning.mean / only.mean,
        "speedup_vs_serial": steps["with_learner"] / steps["serial"],
        "speedup_vs_serial_rollout": steps["rollout"] / steps["serial"],
        "cpu_share_of_simulator_only": only.cpu_ms / rollout.cpu_ms,
        "cpu_share_with_learner": only.cpu_ms / learning.cpu_ms,
        **{f"decisions_per_s_{name}": rate.mean for name, rate in rates.items()},
        **{f"env_steps_per_s_{name}": rate for name, rate in steps.items()},
        **{f"cpu_ms_per_decision_{name}": rate.cpu_ms for name, rate in rates.items()},
        **{
            f"cpu_ms_per_decision_{name}.{kind}": ms
            for name, rate in rates.items()
            for kind, ms in rate.cpu_ms_by_kind().items()
        },
    }


def main(settings: Settings) -> None:
    import logging
    import os

    from avavla_ray.provenance import git_commit, machine

    # A cluster of its own: numbers of a shared one would not be this machine's.
    os.environ["RAY_ADDRESS"] = "local"
    from actors.cluster import connect

    if settings.quick:
        settings = quickly(settings)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    connect(cpus=2 * settings.num_runners + 8)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = settings.checkpoint or make_checkpoint(settings, Path(folder) / "checkpoint")
        numbers, text = measure(settings, checkpoint)
    names = (
        "num_runners", "simulators", "buffers", "rollout_precision", "serial_simulators", "isolate",
        "fragment_decisions", "update_decisions", "suite", "assets", "render", "preset",
    )  # fmt: skip
    numbers |= {name: getattr(settings, name) for name in names} | {"machine": machine(), "commit": git_commit()}
    for name, value in numbers.items():
        print(f"{name:40} {value:.3f}" if isinstance(value, float) else f"{name:40} {value}")
    print(f"\n{text}")
    write: tuple[tuple[Path | None, Callable[..., None], Any], ...]
    write = ((settings.json, write_json, numbers), (settings.markdown, write_text, text))
    for path, how, what in write:
        if path is not None:
            how(path, what)


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
