"""What a cluster has or could start: GPUs of those that learn, how many each gets, keeping to the CPU without one; and
processors."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from avavla_ray.errors import InputError
from avavla_ray.machines import for_learners


def learners_gpus() -> float:
    """GPUs of machines where learners may run: of those that are there, or of those that an autoscaler could start,
    whichever are more. A group of machines for learners is empty until somebody asks for it."""
    return _reachable("GPU", for_learners())


def cluster_cpus() -> float:
    """Processors of all machines that are there or, if more, that an autoscaler could start."""
    return _reachable("CPU", {})


def _reachable(resource: str, wanted: Mapping[str, float]) -> float:
    """Of a resource, on machines that offer all that is `wanted`."""
    import ray
    from ray._private.state import state

    here = sum(
        node["Resources"].get(resource, 0)
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(name) for name in wanted)
    )
    config = state.get_cluster_config()
    if config is None:
        return float(here)
    could = 0
    for group in config.node_group_configs:
        if all(group.resources.get(name, 0) for name in wanted):
            most = sys.maxsize if group.max_count < 0 else group.max_count  # -1: as many as are asked for
            could += most * group.resources.get(resource, 0)
    return float(max(here, could))


def ppo_gpus_each(given: float | None, ranks: int, found: float, servers: float = 0.0) -> float:
    """GPUs of a learner rank of PPO: as given, else one each where there are enough, else none.

    Args:
        found: GPUs that there are or could be (`learners_gpus`). servers: GPUs that policy servers take of these.

    Raises:
        InputError: what no rank could work with.
    """
    if given is None:
        return float(found - servers >= ranks)
    if given < 0:
        raise InputError(f"--learner-gpus {given:g}: give at least 0")
    if 0 < given < 1 and ranks > 1:  # NCCL refuses two ranks on one device
        raise InputError(f"--learner-gpus {given:g} for {ranks} learners: each needs one of its own; give 1, or 0")
    return given


def keep_to_given_gpus() -> None:
    """For an actor, before anything asks torch for a device: without a GPU of its own it computes on the CPU.

    Ray hides no GPU from actors that asked for none, so that they would all take the first one, unreserved.
    """
    import ray

    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"  # what DeepSpeed computes on
