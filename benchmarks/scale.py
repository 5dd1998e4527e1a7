#!/usr/bin/env python
"""What the driver of asynchronous PPO costs for a decision, with 32, 128 and 512 simulators on a cluster of many nodes.

The simulators sleep for as long as LIBERO takes, and nothing is decided or learned, so that one machine carries them
all and its processors are left to what is measured: the driver as runs have it (AsyncPPO with its pool of runners,
queue, metrics and weights) and Ray. The nodes are Ray's own fake ones, each with a raylet and an object store. The
numbers of simulators take turns, with the same processes.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: shorter turns, fewer nodes; ends within 45 s on 2 cores.
        json: file for the numbers.
        simulators: in all, from few to many; multiples of those of a runner.
        per_runner: simulators of a runner. nodes: that the runners are spread over.
        step_ms, jitter: of an environment step; 5 ms is LIBERO's in libero_spatial with the official assets, see
            README.md under simulators.
        fragment_decisions, update_decisions: as in ppo_libero. preset: whose weights are broadcast.
        seconds: of a turn. rounds: turns of each number of simulators.
    """

    quick: bool = False
    json: Path | None = None
    simulators: tuple[int, ...] = (32, 128, 512)
    per_runner: int = 32
    nodes: int = 4
    step_ms: float = 5.0
    jitter: float = 0.1
    fragment_decisions: int = 16
    update_decisions: int = 512
    preset: str = "small"
    seconds: float = 10.0
    rounds: int = 4


@dataclass
class Found:
    """Of one number of simulators, over all turns. `cpu_s`: the driver's; `cluster_cpu_s`: of Ray's own processes."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    cluster_cpu_s: float = 0.0
    decisions: int = 0
    deliveries: int = 0
    updates: int = 0
    broadcast_s: list[float] = field(default_factory=list)
    driver_mib: float = 0.0

    @property
    def cost(self) -> float:
        """Seconds of the driver's processor time for a decision."""
        return self.cpu_s / self.decisions


def own_processes(cluster: Any) -> list[int]:
    """Ids of Ray's own processes on all nodes: control store, raylets, agents."""
    nodes = [cluster.head_node, *cluster.worker_nodes]
    return [info.process.pid for node in nodes for infos in node.all_processes.values() for info in infos]


def turn(algorithm: Any, runners: int, seconds: float, found: Found, ray_processes: list[int]) -> None:
    """One turn with so many runners, and a broadcast of new weights to them."""
    import psutil
    import ray

    from actors.weights import WeightHandle

    actors = algorithm.play_with(runners)
    algorithm.train()  # until fragments flow as they will
    ray_cpu = [psutil.Process(process).cpu_times() for process in ray_processes]
    taken, deliveries, version = algorithm.taken, algorithm.deliveries, algorithm.learner_group.version
    begun, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < begun + seconds:
        algorithm.train()
    found.seconds += time.monotonic() - begun
    found.cpu_s += time.process_time() - cpu
    after = [psutil.Process(process).cpu_times() for process in ray_processes]
    found.cluster_cpu_s += sum(b.user + b.system - a.user - a.system for a, b in zip(ray_cpu, after, strict=True))
    found.decisions += algorithm.taken - taken
    found.deliveries += algorithm.deliveries - deliveries
    found.updates += algorithm.learner_group.version - version
    found.driver_mib = psutil.Process().memory_info().rss / 2**20
    algorithm.settle()
    fresh = algorithm.learner_group.weights()
    handle = WeightHandle(10**9 + len(found.broadcast_s), (fresh,))
    begun = time.monotonic()
    ray.get([actor.pull.remote(handle) for actor in actors])
    found.broadcast_s.append(time.monotonic() - begun)
    ray.get([actor.forget.remote() for actor in actors])


def numbers_of(settings: Settings, found: dict[int, Found]) -> dict[str, float]:
    from benchmarks.scale_cost.sleeping import Pace

    pace = Pace(settings.step_ms, settings.jitter)
    numbers: dict[str, float] = {}
    few, many = min(found), max(found)
    numbers[f"cost_per_decision_{many}_over_{few}"] = found[many].cost / found[few].cost
    for count, each in found.items():
        rate = each.decisions / each.seconds
        numbers |= {
            f"driver_us_per_decision_{count}": 1e6 * each.cost,
            f"driver_share_of_a_core_{count}": each.cpu_s / each.seconds,
            f"cluster_us_per_decision_{count}": 1e6 * each.cluster_cpu_s / each.decisions,
            f"decisions_per_s_{count}": rate,
            f"pace_{count}": rate / (count * pace.decisions_per_s),
            f"decisions_per_delivery_{count}": each.decisions / each.deliveries,
            f"updates_per_s_{count}": each.updates / each.seconds,
            f"broadcast_ms_{count}": 1e3 * sum(each.broadcast_s) / len(each.broadcast_s),
            f"driver_mib_{count}": each.driver_mib,
        }
    return numbers


def measure(settings: Settings) -> dict[str, Any]:
    """The numbers as one flat object."""
    import psutil
    import ray
    from ray.cluster_utils import Cluster

    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy
    from benchmarks.scale_cost.driver import ScaleConfig
    from benchmarks.scale_cost.sleeping import Pace

    runners = max(settings.simulators) // settings.per_runner
    begun = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(settings.nodes):
        room = -(-runners // settings.nodes)
        cluster.add_node(wait=False, num_cpus=room, resources={"simulator": room}, object_store_memory=256 * 2**20)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    cluster.wait_for_nodes()
    config = ScaleConfig()
    config.env_runners(
        num_env_runners=runners, custom_resources_per_env_runner={"simulator": 1},
        rollout_fragment_length=settings.fragment_decisions,
    ).training(
        min_env_runners=1, idle_release_s=None, max_lag=1000, update_decisions=settings.update_decisions,
        minibatch_decisions=64,
    )  # fmt: skip
    config.pace = Pace(settings.step_ms, settings.jitter, simulators=settings.per_runner)
    config.preset = settings.preset
    config.parameters = sum(each.numel() for each in AvaVlaPolicy(preset(settings.preset)).parameters())
    algorithm: Any = config.build_algo()
    while algorithm.pool.present < runners:  # which needs no update to have been made
        algorithm.training_step()
    print(f"{runners} runners on {settings.nodes} nodes after {time.monotonic() - begun:.0f} s", flush=True)
    found = {count: Found() for count in settings.simulators}
    ray_processes = own_processes(cluster)
    for _ in range(settings.rounds):
        for count, each in found.items():
            turn(algorithm, count // settings.per_runner, settings.seconds, each, ray_processes)
        print(f"a round of turns done after {time.monotonic() - begun:.0f} s", flush=True)
    pids = [answer["pid"] for answer in ray.get([actor.hello.remote() for actor in algorithm.play_with(runners)])]
    resident = [psutil.Process(pid).memory_info().rss / 2**20 for pid in pids]
    numbers: dict[str, Any] = numbers_of(settings, found)
    numbers |= {
        "runner_mib": sum(resident) / len(resident), "weights_mib": 4 * config.parameters / 2**20,
        "runners": runners, "nodes": settings.nodes, "step_ms": settings.step_ms, "jitter": settings.jitter,
        "fragment_decisions": settings.fragment_decisions, "update_decisions": settings.update_decisions,
        "policy": "none",
    }  # fmt: skip
    algorithm.stop()
    ray.shutdown()
    cluster.shutdown()
    return numbers


def main(settings: Settings) -> None:
    """Measure, print, and write the file that was asked for.

    Raises:
        InputError: simulators that do not fill runners.
    """
    import logging

    from avavla_ray.provenance import git_commit, machine

    if any(count % settings.per_runner or count < settings.per_runner for count in settings.simulators):
        raise InputError(
            f"{', '.join(map(str, settings.simulators))} simulators can't be shared out over runners of "
            f"{settings.per_runner}: give multiples of that"
        )
    if settings.quick:
        settings = replace(settings, nodes=2, seconds=1.5, rounds=2)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    # A cluster of its own, whose workers find what is measured and keep to one thread each.
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    numbers = measure(settings) | {"machine": machine(), "commit": git_commit()}
    for name, value in numbers.items():
        print(f"{name:40} {value:.3f}" if isinstance(value, float) else f"{name:40} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(ROOT))
    run_job(main, Settings)
