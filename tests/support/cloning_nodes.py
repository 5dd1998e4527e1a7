"""Behaviour cloning on a Ray cluster whose nodes are lost, as a program: the tests' own process has another cluster.

    python -m tests.support.cloning_nodes DEMOS FOLDER

Leaves FOLDER/lost, FOLDER/three and FOLDER/refused, each the output of a run, and FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from actors.cluster import connect
from avavla_ray.errors import InputError
from avavla_ray.policy.config import preset
from avavla_ray.training.behaviour_cloning import gpus_each, train
from avavla_ray.training.output import CHECKPOINTS, LAUNCH
from avavla_ray.training.run_lock import LOCK
from avavla_ray.training.settings import CloningSettings, recipe

STEPS = 16


def settings_of(**changes: Any) -> CloningSettings:
    return recipe(
        "tiny", steps=STEPS, streams=5, checkpoints=STEPS, keep=STEPS, validations=1, held_out_limit=1,
        **{"threads": 2, **changes},
    )  # fmt: skip


class Nodes:
    """A head without CPUs, and nodes of the kind that training runs on: 2 CPUs for a worker, 1 for its data."""

    def __init__(self) -> None:
        # A raylet that does not answer is given up after 5 s, as slow ones are not; Ray's default is 15.
        patience = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": patience})
        self.by_raylet: dict[int, Any] = {}

    def add(self, gpus: int = 0) -> None:
        node = self.cluster.add_node(num_cpus=3, num_gpus=gpus)
        self.by_raylet[node.all_processes["raylet"][0].process.pid] = node

    def lose(self, worker: int) -> None:
        """The node of this process, with all that runs there, at once."""
        os.kill(worker, signal.SIGSTOP)  # it would see its node die, and might do a step more
        node = self.by_raylet.pop(parent(worker))
        self.cluster.remove_node(node, allow_graceful=False)
        os.kill(worker, signal.SIGKILL)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def newest_step(output: Path) -> int:
    """Without looking into the checkpoints, as a look would set unreadable ones aside."""
    return max((int(path.name.split("-")[1]) for path in (output / CHECKPOINTS).glob("step-*")), default=0)


def writer(output: Path) -> int:
    """Number of the process that writes this run's checkpoints."""
    return int((output / CHECKPOINTS / LOCK).read_text(encoding="utf-8").split()[1])


@contextmanager
def meanwhile(act: Any, seconds: float = 60.0) -> Iterator[None]:
    """Run `act` beside the block, and for at most `seconds` longer; what it raises is raised after the block."""
    errors: list[BaseException] = []

    def caught() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=caught, daemon=True)
    thread.start()
    yield
    thread.join(timeout=seconds)
    if errors:
        raise errors[0]
    if thread.is_alive():
        raise TimeoutError(f"not over {seconds:.0f} s later")


def until(condition: Any, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("nothing happened")
        time.sleep(0.01)


def copied(begun: Path, output: Path, step: int) -> Path:
    """The run as it was when it wrote the checkpoint of `step`."""
    shutil.copytree(begun, output)
    for stored in (output / CHECKPOINTS).glob("step-*"):
        if int(stored.name.split("-")[1]) > step:
            shutil.rmtree(stored)
    return output


def main(demos: Path, folder: Path) -> None:
    nodes, found = Nodes(), {}
    for _ in range(2):
        nodes.add()
    connect(address=nodes.cluster.address)
    policy = preset("tiny")

    # A run that may shrink loses the node of rank 0, and there is no other; then the node that it goes on at, and one
    # comes.
    lost = folder / "lost"

    def learn() -> None:
        train(settings_of(workers=2, min_workers=1), policy, demos, lost)

    with meanwhile(learn, seconds=240):  # nodes come and go by the main thread only
        until(lambda: newest_step(lost) >= 4)
        first = writer(lost)
        nodes.lose(first)
        found["lost_after"] = newest_step(lost)
        until(lambda: writer(lost) != first and newest_step(lost) >= 8)
        second = writer(lost)
        at = parent(second)
        nodes.lose(second)
        found["moved_after"] = newest_step(lost)
        nodes.add()
        until(lambda: writer(lost) != second)
        found["elsewhere"] = parent(writer(lost)) != at

    # What one worker saved goes on with three.
    nodes.add()
    train(settings_of(workers=3, threads=1), policy, demos, copied(lost, folder / "three", 12), resume=True)

    # The machine that a worker is on has another file where the job wrote.
    refused = folder / "refused"

    def hide() -> None:
        until((refused / LAUNCH).is_file)
        (refused / LAUNCH).write_text("of another start", encoding="utf-8")

    try:
        with meanwhile(hide):
            train(settings_of(workers=1, max_failures=0), policy, demos, refused)
    except InputError as error:
        found["refusal"] = str(error)
    # On what is left of a cluster with GPUs, a run that may shrink keeps to them.
    nodes.add(gpus=1)
    found["gpus"] = gpus_each(settings_of(workers=2, min_workers=1))
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    ray.shutdown()
    nodes.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
