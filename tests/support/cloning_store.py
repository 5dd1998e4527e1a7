"""Behaviour cloning on machines that share no folder, with a store between them, as a program.

    python -m tests.support.cloning_store URI_OF_DEMOS URI_OF_RUN FOLDER

Every node has a cache of its own below FOLDER. The node of rank 0 is lost in the middle; another one comes. At the end
a driver of another machine resumes what is finished, and one begins a run from its checkpoint. Leaves
FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from actors.cluster import connect
from avavla_ray.errors import InputError
from avavla_ray.policy.config import preset
from avavla_ray.storage.arguments import mirrored
from avavla_ray.storage.copies import local_copy
from avavla_ray.storage.manifest import read_manifest
from avavla_ray.storage.place import Place
from avavla_ray.training.behaviour_cloning import train
from avavla_ray.training.output import CHECKPOINTS
from tests.support.cloning_nodes import Nodes, meanwhile, newest_step, settings_of, until, writer


class Machines(Nodes):
    """The same, each with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.count = folder, 0

    def add(self, gpus: int = 0) -> None:
        self.count += 1
        cache = {"AVAVLA_CACHE": str(self.folder / f"machine{self.count}")}
        node = self.cluster.add_node(num_cpus=3, num_gpus=gpus, env_vars=cache)
        self.by_raylet[node.all_processes["raylet"][0].process.pid] = node

    def outputs(self) -> list[Path]:
        """Where workers of some machine keep the checkpoints of the run."""
        return [path.parent for path in self.folder.glob("machine*/outputs/*/*/checkpoints")]

    def writing(self) -> tuple[Path, int] | None:
        """The output of the machine that rank 0 is on now, and its process."""
        for output in self.outputs():
            lock = output / CHECKPOINTS / ".lock"
            if lock.is_file() and lock.read_text(encoding="utf-8").strip():
                process = writer(output)
                if Path(f"/proc/{process}").exists():
                    return output, process
        return None


def main(demos: str, uri: str, folder: Path) -> None:
    machines, found = Machines(folder), dict[str, Any]()
    for _ in range(2):
        machines.add()
    connect(address=machines.cluster.address)
    policy, published = preset("tiny"), Place.of(uri) / CHECKPOINTS

    def steps_published() -> int:
        names = {name.partition("/")[0] for name in read_manifest(published).files}
        return max((int(name.split("-")[1]) for name in names if name.startswith("step-")), default=0)

    def learn() -> None:
        with mirrored(uri) as output:
            train(settings_of(workers=2, min_workers=1), policy, demos, output)

    with meanwhile(learn, seconds=240):
        until(lambda: steps_published() >= 4)
        begun = machines.writing()
        assert begun is not None
        machines.lose(begun[1])
        found["published_when_lost"], found["lost_after"] = steps_published(), newest_step(begun[0])
        machines.add()
        until(lambda: (now := machines.writing()) is not None and now[0] != begun[0])
    found["machines"] = sorted({output.relative_to(folder).parts[0] for output in machines.outputs()})

    # The driver's machine is another one now, with nothing on it.
    os.environ["AVAVLA_CACHE"] = str(folder / "driver2")
    ray.shutdown()
    os.environ.pop("AVAVLA_CACHE")
    connect(address=machines.cluster.address)
    os.environ["AVAVLA_CACHE"] = str(folder / "driver2")
    with mirrored(uri) as output:
        again = train(settings_of(workers=1), policy, demos, output, resume=True)
        found["resumed_at"] = again.metrics["step"]
    with mirrored(uri) as output:
        try:
            train(settings_of(workers=1), policy, demos, output)
        except InputError as error:
            found["refusal"] = str(error)

    # A run that starts from its checkpoint, which no machine but the driver's has.
    start = local_copy(uri.replace("?", "/checkpoint?"))
    with mirrored(uri.replace("?", "-2?")) as output:
        short = replace(settings_of(workers=1), steps=8, checkpoints=1)
        found["second"] = train(short, policy, demos, output, initial=start).metrics["step"]
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    ray.shutdown()
    machines.cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
