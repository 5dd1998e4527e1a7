"""What Ray gives learners on machines with GPUs, which are only said to be there: nothing is computed on them."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import ray
from ray._private.state import state
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from actors.async_ppo_config import AsyncPPOConfig
from actors.rooms import learner_room
from avavla_ray.machines import LEARNERS_ON
from avavla_ray.training.behaviour_cloning import gpus_each
from avavla_ray.training.devices import cluster_cpus, keep_to_given_gpus, learners_gpus
from avavla_ray.training.settings import CloningSettings


class Rank:
    def devices(self) -> list[str | None]:
        """Where it may compute, and what DeepSpeed is told. In a thread, as Ray Train runs its workers."""
        thread = threading.Thread(target=keep_to_given_gpus)
        thread.start()
        thread.join()
        return [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR")]


def ranks(gpus: float) -> list[list[str | None]]:
    """Devices of two learner ranks with so many GPUs each."""
    config: Any = AsyncPPOConfig().learners(
        num_learners=2, num_gpus_per_learner=gpus, custom_resources_per_learner={"learner": 0.01}
    )
    room = learner_room(config, 2)
    room.wait("learner ranks")
    actors = [ray.remote(**room.options(rank))(Rank).remote() for rank in range(2)]
    found = ray.get([actor.devices.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    room.leave()
    return found


def report(*groups: tuple[int, dict[str, int]]) -> None:
    """Say what an autoscaler could start, as Ray's own says it."""
    config = autoscaler_pb2.ClusterConfig()
    for most, resources in groups:
        config.node_group_configs.add(name=str(resources), max_count=most, resources=resources)
    state._connect_and_get_accessor()
    ray._private.worker.global_worker.gcs_client.report_cluster_config(config.SerializeToString())


def main() -> None:
    os.environ[LEARNERS_ON] = "learner"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1})
    ray.init(address=cluster.address, logging_level="ERROR")
    found: dict[str, Any] = {"head alone": learners_gpus()}  # whose GPU is not for learners
    settings = CloningSettings(steps=1, workers=2)
    report((4, {"CPU": 32, "simulator": 32, "GPU": 1}), (2, {"CPU": 8, "GPU": 1, "learner": 1}))
    found["could"], found["cloning"], found["processors"] = learners_gpus(), gpus_each(settings), cluster_cpus()
    report((-1, {"GPU": 1, "learner": 1}))
    found["without limit"] = learners_gpus() > 1000
    report()
    cluster.add_node(num_cpus=2, num_gpus=2, resources={"learner": 1})
    cluster.wait_for_nodes()
    found["here"] = learners_gpus()
    found["one each"], found["none"] = ranks(1), ranks(0)
    print(json.dumps(found))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
