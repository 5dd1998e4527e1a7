"""Asynchronous PPO on a Ray cluster whose nodes come and go, as a program: the tests' own process has another cluster.

    python -m tests.support.elastic_nodes CHECKPOINT FOLDER

Leaves FOLDER/episodes.jsonl, the run's ledger, and FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.cluster import connect
from actors.demand import Demand
from actors.ledger import read_ledger
from actors.metrics import RELEASED, flat
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import make_point_simulator

RUNNERS, A_NODE = 4, 2
MEGABYTES = 48


class Run:
    """Training whose every iteration is written down."""

    def __init__(self, config: AsyncPPOConfig) -> None:
        self.algorithm: AsyncPPO = config.build_algo()
        self.reported: list[str] = []
        self.point: dict[str, float] = {}

    def until(self, reached: Callable[[], Any], limit_s: float = 150.0) -> None:
        end = time.monotonic() + limit_s
        while not reached():
            if time.monotonic() > end:
                raise TimeoutError(f"not reached: {self.point}")
            self.point = flat(self.algorithm.train())
            self.reported += [episode.episode_id for episode in self.algorithm.episodes]

    def settle(self) -> None:
        """What is delivered outside an iteration is written down, too: the next one forgets it."""
        known = len(self.algorithm.episodes)
        self.algorithm.settle()
        self.reported += [episode.episode_id for episode in self.algorithm.episodes[known:]]

    def heard_of(self, *names: str) -> bool:
        """Whether an episode of each of these runners ("3.0": of the seat and its start) has been reported."""
        return all(any(f"-{name}-" in episode for episode in self.reported) for name in names)

    def actors(self) -> dict[int, Any]:
        group = self.algorithm.env_runner_group
        return {seat: group.actor(seat) for seat in group.seats if seat in group._seated}


def used_bytes() -> dict[str, int]:
    """Of each node's object store."""
    return {
        node["NodeID"]: node_stats(
            node["NodeManagerAddress"], node["NodeManagerPort"], False
        ).store_stats.object_store_bytes_used
        for node in ray.nodes() if node["Alive"]
    }  # fmt: skip


def broadcast(run: Run) -> dict[str, Any]:
    """All runners hold the same big object at once: where it lies, and by how much each node's store has grown."""
    run.settle()
    before = used_bytes()
    big = ray.put(np.ones(MEGABYTES << 20, np.uint8))

    def hold(runner: Any, boxed: tuple[Any, ...]) -> tuple[str, int]:
        runner.held = ray.get(boxed[0])
        return ray.get_runtime_context().get_node_id(), int(runner.held[-1])

    held = ray.get([actor.apply.remote(hold, boxed=(big,)) for actor in run.actors().values()])
    grown = {node: (now - before.get(node, 0)) / 2**20 for node, now in used_bytes().items()}
    return {
        "holders": [node for node, _ in held], "at": get_object_locations([big])[big]["node_ids"], "grown": grown,
        "weights_at": get_object_locations([run.algorithm.weights.reference[0]])[
            run.algorithm.weights.reference[0]
        ]["node_ids"],
    }  # fmt: skip


def main(checkpoint: Path, folder: Path) -> None:
    # A raylet that does not answer is given up after 5 s, as slow ones are not; Ray's default is 15.
    patience = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
    store = 150 << 20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": store,
            "resources": {"learner": 1},
            "_system_config": patience,
        },
    )

    def add() -> Any:
        return cluster.add_node(num_cpus=2, resources={"simulator": A_NODE}, object_store_memory=store)

    first = add()
    connect(address=cluster.address)
    config = (
        AsyncPPOConfig()
        .env_runners(
            num_env_runners=RUNNERS, num_envs_per_env_runner=2, custom_resources_per_env_runner={"simulator": 1}
        )
        .learners(custom_resources_per_learner={"learner": 1})
        .debugging(seed=1)
        .training(
            checkpoint=str(checkpoint), simulator=SimulatorConfig(suite="point", tasks=(0,), image_size=32),
            make_simulator=make_point_simulator, update_decisions=64, minibatch_decisions=16, epochs=6, isolate=False,
            queue_decisions=64,
            ledger=str(folder / "episodes.jsonl"),
        )
    )  # fmt: skip
    run, found = Run(config), dict[str, Any]()
    pool = run.algorithm.pool

    run.until(lambda: run.heard_of("1.0", "2.0"))
    found["begun_with"] = pool.present
    add()
    begun = time.monotonic()
    run.until(lambda: run.heard_of("3.0", "4.0"))
    found["joined_after_s"] = time.monotonic() - begun
    found["head"] = ray.get_runtime_context().get_node_id()
    found["broadcast"] = broadcast(run)

    # The node of the first two is gone from one moment to the next.
    pids = [ray.get(actor.hello.remote()) for actor in run.actors().values()]
    lost = [answer["pid"] for answer in pids if answer["node"] == first.node_id]
    for pid in lost:
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    cluster.remove_node(first, allow_graceful=False)
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    run.until(lambda: pool.present == RUNNERS - len(lost))
    found["lost"], found["noticed_after_s"] = len(lost), time.monotonic() - begun
    version = run.algorithm.learner_group.version
    run.until(lambda: run.algorithm.learner_group.version > version + 3)
    add()
    run.until(lambda: pool.present == RUNNERS)
    run.until(lambda: run.heard_of("1.1", "2.1"))

    # Runners that a learner can't keep up with are let go, and their place is free.
    run.algorithm._demand = Demand(1.0)
    run.until(lambda: run.algorithm.metrics.peek(RELEASED, default=0) > 0)
    run.algorithm._demand = None
    found["free"], found["present"] = ray.available_resources().get("simulator", 0), pool.present
    run.settle()
    run.algorithm.stop()
    found["reported"] = run.reported
    found["restarts"] = run.point["total/runner_restarts"]
    found["ledger"] = [row["episode_id"] for row in read_ledger(folder / "episodes.jsonl")]
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
