#!/usr/bin/env python
"""Episodes an hour of an evaluation on all cores, against one process that plays the same episodes.

Both play the official protocol, in turns within one run, so that whatever else the machine does falls on both alike.
The one process has a simulator and the policy, and plays without Ray or isolation; Ray starts it, so that it has the
priority that the pool's processes have. That both leave the same records is checked. In full, the pool then plays the
whole suite; with --quick, how long that takes is worked out from its rate.

With random weights the robot fails and plays to the time limit, and the exit gate, which has learned nothing, lets
every decision think to full depth: no checkpoint takes longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import default_workers, run_job
from avavla_ray.files import write_json

if TYPE_CHECKING:
    from actors.evaluation_pool import Episode, EvaluationPool
    from avavla_ray.evaluation.episode import EpisodeRecord
    from avavla_ray.policy.agent import Agent
    from avavla_ray.simulators.base import SimulatorConfig

THRESHOLD = 0.55  # the paper's


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: fewer turns, and the whole suite by rate; ends within 45 s on 2 cores.
        json: file for the numbers.
        checkpoint: policy that plays; by default random weights of `preset`.
        turn_episodes: that the one process plays in a turn; the pool plays as many for each of its actors.
        rounds: turns of each. whole: play the whole suite too, if not `quick`.
        max_steps: another step limit than the suite's, for tests of this benchmark.
    """

    quick: bool = False
    json: Path | None = None
    checkpoint: Path | None = None
    preset: str = "small"
    suite: str = "libero_object"
    assets: str = "bundled"
    render: Literal["reference", "fast"] = "fast"
    num_runners: int = default_workers()
    isolate: bool = True
    turn_episodes: int = 3
    rounds: int = 5
    whole: bool = True
    max_steps: int | None = None
    seed: int = 0


@dataclass
class Turns:
    """What a side played.

    Attributes:
        seconds: of each turn. cpu_s: processor time of all processes in all turns.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    records: dict[Episode, EpisodeRecord] = field(default_factory=dict)

    @property
    def episodes_per_hour(self) -> float:
        return 3600 * len(self.records) / sum(self.seconds)

    @property
    def env_steps_per_s(self) -> float:
        return sum(record.steps for record in self.records.values()) / sum(self.seconds)


def make_agent(settings: Settings) -> Agent:
    """Of the checkpoint, else of random weights in units in which their actions are small motions."""
    import numpy as np
    import torch

    from avavla_ray.normalisation import FieldStatistics, Statistics
    from avavla_ray.policy.agent import Agent
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    if settings.checkpoint is not None:
        checkpoint = load_checkpoint(settings.checkpoint)
        return Agent(checkpoint.policy, checkpoint.statistics_of(None))
    torch.manual_seed(settings.seed)
    policy = AvaVlaPolicy(preset(settings.preset)).eval()
    action, proprio = np.full(policy.config.action_dim, 0.3), np.ones(policy.config.proprio_dim)
    statistics = Statistics(
        "none", FieldStatistics.of(np.stack([-action, action])), FieldStatistics.of(np.stack([-proprio, proprio])),
        episodes=0, steps=0,
    )  # fmt: skip
    return Agent(policy, statistics)


def play_alone(process: Any, episodes: Sequence[Episode], turns: Turns) -> None:
    """A turn of the one process."""
    import ray

    from benchmarks.rollout_cost.processor import processor_seconds, spent

    before = processor_seconds(())
    seconds, records = ray.get(process.turn.remote(episodes))
    turns.seconds.append(seconds)
    turns.cpu_s += spent(before, processor_seconds(())).total()
    turns.records.update(zip(episodes, records, strict=True))


def play_together(pool: EvaluationPool, episodes: Sequence[Episode], turns: Turns) -> None:
    """A turn of the pool."""
    from benchmarks.rollout_cost.processor import processor_seconds, spent

    def finished(episode: Episode, record: EpisodeRecord, _: object) -> None:
        turns.records[episode] = record

    before, begun = processor_seconds(()), time.perf_counter()
    pool.play(episodes, finished)
    turns.seconds.append(time.perf_counter() - begun)
    turns.cpu_s += spent(before, processor_seconds(())).total()


def measure(settings: Settings) -> dict[str, Any]:
    """The numbers as one flat object."""
    import ray

    from actors.evaluation_pool import Episode, EvaluationPool
    from avavla_ray.evaluation.exit_setting import ExitSetting
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import make_simulator, suite_spec
    from benchmarks.evaluation_cost.one_process import OneProcess

    agent, spec = make_agent(settings), suite_spec(settings.suite)
    config = SimulatorConfig(
        suite=settings.suite, assets=settings.assets, render=settings.render, max_steps=settings.max_steps,
        image_size=agent.config.backbone.camera_size,
    )  # fmt: skip
    setting = ExitSetting(exit_threshold=THRESHOLD) if agent.config.latent.enabled else ExitSetting(fixed_depth=0)
    tasks, states = range(len(spec.instructions)), range(spec.num_initial_states)
    one, many = Turns(), Turns()
    begun = time.perf_counter()
    with EvaluationPool(agent, config, settings.num_runners, isolate=settings.isolate) as pool:
        # Each actor, as the one process, has a task of its own: loading one is not measured.
        process: Any = ray.remote(num_cpus=1)(OneProcess).remote(agent, config, make_simulator)
        warm = [Episode(setting, task, states[-1]) for task in range(settings.num_runners)]
        first = process.turn.remote(warm[:1])
        play_together(pool, warm, Turns())
        ray.get(first)
        print(f"ready after {time.perf_counter() - begun:.0f} s", flush=True)
        for turn in range(settings.rounds):
            mine = [turn * settings.turn_episodes + place for place in range(settings.turn_episodes)]
            play_alone(process, [Episode(setting, 0, state) for state in mine], one)
            ours = [Episode(setting, task, state) for state in mine for task in range(settings.num_runners)]
            play_together(pool, ours, many)
            print(f"turn {turn + 1} of {settings.rounds} done after {time.perf_counter() - begun:.0f} s", flush=True)
        ray.kill(process)
    numbers = numbers_of(one, many) | {"minutes_for_500_episodes_measured": False}
    if settings.whole and not settings.quick:
        numbers |= play_suite(agent, config, [Episode(setting, t, state) for t in tasks for state in states], settings)
    return numbers


def numbers_of(one: Turns, many: Turns) -> dict[str, Any]:
    """Of the turns; the median of the turns' ratios, which a disturbance of a single one doesn't move."""
    ratios = sorted(
        alone / (together * len(one.records) / len(many.records))
        for alone, together in zip(one.seconds, many.seconds, strict=True)
    )
    shared = [episode for episode in one.records if episode in many.records]
    middle = len(ratios) // 2
    return {
        "speedup_vs_one_process": ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2,
        "speedup_vs_one_process_worst": ratios[0],
        "minutes_for_500_episodes": 60 * 500 / many.episodes_per_hour,
        "episodes_per_hour": many.episodes_per_hour,
        "episodes_per_hour_one_process": one.episodes_per_hour,
        "env_steps_per_s": many.env_steps_per_s,
        "env_steps_per_s_one_process": one.env_steps_per_s,
        "cpu_s_per_episode": many.cpu_s / len(many.records),
        "cpu_s_per_episode_one_process": one.cpu_s / len(one.records),
        "episodes_compared": len(shared),
        "episodes_that_differ": sum(untimed(one.records[each]) != untimed(many.records[each]) for each in shared),
    }


def untimed(record: EpisodeRecord) -> EpisodeRecord:
    """What a record says but for milliseconds."""
    return replace(record, milliseconds=[])


def play_suite(
    agent: Agent, config: SimulatorConfig, episodes: Sequence[Episode], settings: Settings
) -> dict[str, Any]:
    """The official protocol from the start of the actors to the last episode."""
    from actors.evaluation_pool import EvaluationPool

    whole = Turns()
    begun = time.perf_counter()
    with EvaluationPool(agent, config, settings.num_runners, isolate=settings.isolate) as pool:
        play_together(pool, episodes, whole)
    minutes = (time.perf_counter() - begun) / 60
    return {
        "minutes_for_500_episodes": minutes * 500 / len(episodes),
        "minutes_for_500_episodes_measured": True,
        "suite_episodes": len(episodes),
        "suite_env_steps": sum(record.steps for record in whole.records.values()),
        "suite_aborted_episodes": sum(record.error is not None for record in whole.records.values()),
    }


def main(settings: Settings) -> None:
    import os

    from avavla_ray.provenance import git_commit, machine

    # A cluster of its own: numbers of a shared one would not be this machine's.
    os.environ["RAY_ADDRESS"] = "local"
    from actors.cluster import connect

    if settings.quick:
        settings = replace(settings, turn_episodes=1, rounds=2)
    connect(cpus=settings.num_runners + 1)
    numbers = measure(settings)
    names = ("num_runners", "isolate", "suite", "assets", "render", "preset")
    numbers |= {name: getattr(settings, name) for name in names} | {"machine": machine(), "commit": git_commit()}
    for name, value in numbers.items():
        print(f"{name:40} {value:.3f}" if isinstance(value, float) else f"{name:40} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
