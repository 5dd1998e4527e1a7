"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.machines import LEARNERS_ON, SIMULATORS_ON, chosen
from avavla_ray.provenance import COMMIT, git_commit

# What every process of ours needs: one compute thread an actor (there are as many actors as cores), headless
# rendering on the first EGL device whatever CUDA_VISIBLE_DEVICES says, and no phone calls home.
PROCESS_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MUJOCO_GL": "egl",
    "PYOPENGL_PLATFORM": "egl",
    "MUJOCO_EGL_DEVICE_ID": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONWARNINGS": "ignore",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # for the cluster to have room for all workers
}

# Settings of the caller's shell that its actors need too.
HANDED_ON = (
    "LIBERO_ASSETS_PATH", "CALVIN_ENV_ROOT", "AVAVLA_CACHE", "DS_ACCELERATOR", SIMULATORS_ON, LEARNERS_ON,
    "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID",
)  # fmt: skip


def _running_here() -> str | None:
    """Address of a Ray head that someone else started on this machine, if any."""
    from ray._private.services import find_gcs_addresses

    return next(iter(sorted(find_gcs_addresses())), None)


def _check_listening(address: str) -> None:
    """Refuse an address where nothing listens at once; Ray itself would knock for half a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(f"no Ray cluster answers at {address} ({error}): start it, or unset RAY_ADDRESS") from error


def submitted_environment() -> dict[str, str]:
    """What whoever submitted this job set for all of its processes; Ray refuses to have it set again."""
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return (submitted.get("runtime_env") or {}).get("env_vars") or {}


def _announce_machines() -> None:
    """Say what runs on which machines only, and when the cluster has none of these."""
    import ray
    from ray._private.state import state

    offered = ray.cluster_resources()
    offered |= {name: most for name, most in (state.get_max_resources_from_cluster_config() or {}).items() if most}
    for what, name in chosen().items():
        print(f"{what} run on machines that offer {name}", flush=True)
        if not offered.get(name):
            print(
                f"no machine of the cluster offers {name}, and no autoscaler knows one that would: {what} wait until "
                f"one joins (ray start --resources '{{\"{name}\": 8}}'), or stop and unset AVAVLA_{what.upper()}_ON",
                flush=True,
            )


def connect(*, address: str | None = None, cpus: int | None = None) -> dict[str, Any]:
    """Join the cluster at `address` (or RAY_ADDRESS, as inside a Ray job), else start one on this machine.

    Args:
        cpus: processors that the work reserves; a cluster started here offers at least so many slots, whatever the
            machine has.

    Returns:
        What was joined: {"address": ..., "cpus": ...}.

    Raises:
        InputError: no cluster at that address, or another one already runs here and nothing says which is meant.
    """
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    if ray.is_initialized():
        return {
            "address": ray.get_runtime_context().gcs_address,
            "cpus": ray.cluster_resources().get("CPU", 0),
        }
    address = address or os.environ.get("RAY_ADDRESS")
    environment = {**PROCESS_ENVIRONMENT, COMMIT: git_commit()}
    environment |= {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    machines, submitted = chosen(), submitted_environment()
    environment = {name: value for name, value in environment.items() if name not in submitted}
    runtime = {"env_vars": environment}
    if address in (None, "local"):
        other = _running_here()
        if address is None and other is not None:
            raise InputError(
                f"a Ray cluster is already running on this machine at {other}: "
                f"set RAY_ADDRESS={other} to use it, or RAY_ADDRESS=local to start another"
            )
        slots = max(len(os.sched_getaffinity(0)), cpus or 1)
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        ray.init(
            address="local", num_cpus=slots, include_dashboard=False, log_to_driver=True,
            logging_config=ray.LoggingConfig(log_level="ERROR"), runtime_env=runtime,
            resources=dict.fromkeys(machines.values(), slots),
        )  # fmt: skip
    else:
        _check_listening(address)
        # Ray sends its token of its own accord only to clusters that it starts itself.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        try:
            ray.init(address=address, logging_level="ERROR", runtime_env=runtime)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"no Ray cluster answers at {address} ({first}): start it, or unset RAY_ADDRESS; "
                "if it asks for a token, export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from error
        offered = int(ray.cluster_resources().get("CPU", 0))
        if offered < (cpus or 1):
            print(
                f"the cluster at {address} has {offered} CPUs and this work reserves {cpus}: it waits until there are "
                "more; without an autoscaler, stop it and lower --num-runners or --workers",
                flush=True,
            )
        _announce_machines()
    return {"address": ray.get_runtime_context().gcs_address, "cpus": ray.cluster_resources().get("CPU", 0)}
