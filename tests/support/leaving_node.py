"""PPO on a head and a machine that is taken away with notice, as a program: the tests' own process has another cluster.

    python -m tests.support.leaving_node CHECKPOINT FOLDER

Leaves FOLDER/found.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import ObjectLostError
from ray.experimental import get_object_locations

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.cluster import connect
from actors.known_runner import Stage
from actors.termination import waiting
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import make_point_simulator

RUNNERS = 2
HOOK_S = "60"


def until(reached: Callable[[], Any], do: Callable[[], Any], limit_s: float = 90.0) -> None:
    end = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError("not reached")
        do()


@ray.remote(num_cpus=0, resources={"maker": 1})
class Maker:
    """Something else on that machine, which nobody copies."""

    def make(self) -> np.ndarray:
        return np.ones(1 << 20)


def main(checkpoint: Path, folder: Path) -> None:
    notice = folder / "pod" / "leaving"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "resources": {"learner": 1},
            "object_store_memory": 150 << 20,
            # Small results travel with the answer; these fragments are to lie in a store, as those of pictures do.
            "_system_config": {"max_direct_call_object_size": 1000},
        },
    )
    spot = cluster.add_node(
        num_cpus=RUNNERS, resources={"simulator": RUNNERS, "maker": 1}, object_store_memory=150 << 20
    )
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
            make_simulator=make_point_simulator, update_decisions=64, minibatch_decisions=16, epochs=1, isolate=False,
            queue_decisions=2048, max_lag=50, spot=f"file:{notice}",
        )
    )  # fmt: skip
    algorithm: AsyncPPO = config.build_algo()
    found: dict[str, Any] = {}
    pool, queue, group = algorithm.pool, algorithm.queue, algorithm.learner_group

    def play() -> None:
        """A training step without learning, so that the queue fills with what lies on the machine that is to go."""
        algorithm._order()
        algorithm._wait()
        algorithm.take_deliveries()

    maker = Maker.remote()
    left_behind = maker.make.remote()
    ray.wait([left_behind], fetch_local=False)
    until(lambda: len(queue) >= 6 and pool.count(Stage.PLAYING) == RUNNERS, play)
    found["waited_for"] = len(waiting(notice))
    stored = get_object_locations([lot.fragments for lot in queue.lots])
    found["lay_there_alone"] = sum(each["node_ids"] == [spot.node_id] for each in stored.values())

    begun = time.monotonic()
    hook = subprocess.Popen([sys.executable, "-m", "actors.hand_in", str(notice), "--seconds", HOOK_S])
    until(lambda: hook.poll() is not None, play)
    found["hook"], found["hook_s"] = hook.returncode, time.monotonic() - begun
    found["left"], found["lots"] = pool.count(Stage.LEAVING), len(queue)
    head = ray.get_runtime_context().get_node_id()
    found["lie_on_the_head"] = sum(lot.node == head for lot in queue.lots)
    cluster.remove_node(spot, allow_graceful=True)
    try:
        ray.get(left_behind, timeout=60)
        found["left_behind"] = "is there"
    except ObjectLostError:
        found["left_behind"] = "is lost"
    fragments = ray.get([lot.fragments for lot in queue.lots], timeout=60)
    found["decisions"] = sum(len(fragment.steps) for each in fragments for fragment in each)
    found["handed_in"] = queue.decisions
    before, version = len(queue), group.version
    until(lambda: group.version > version, algorithm.training_step)
    found["learned_from"], found["dropped"] = before - len(queue), queue.dropped.lots
    algorithm.stop()
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
