"""The cluster of the cluster/ files in small: a head without processors, a learner's machine, two for simulators.

    python -m tests.support.placed_nodes CHECKPOINT FOLDER placement|cloning|losses

"placement" runs the jobs of PPO and of evaluation, "cloning" behaviour cloning; "losses" loses machines while PPO
trains, and gets them back. Leaves FOLDER/found.json. A program of its own: the tests' process has another cluster.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from actors import cloning_job
from actors.cluster import connect
from actors.ledger import read_ledger
from actors.ppo_job import Settings, choose, configure
from avavla_ray.machines import LEARNERS_ON, SIMULATORS_ON
from avavla_ray.policy.weights import flatten
from avavla_ray.simulators.base import SimulatorConfig
from jobs import evaluate, ppo_libero
from tests.support.demonstration_data import make_dataset
from tests.support.elastic_nodes import Run

SUITE = "tests.support.point_simulator:PointSimulator"
STORE = 100 << 20
AWAY_S = 4.0


class Machines:
    """A cluster of four; names of its nodes by their ids, those of nodes that have gone, too."""

    def __init__(self) -> None:
        # A raylet that does not answer is given up after 5 s, as slow ones are not; Ray's default is 15.
        patience = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {"num_cpus": 0, "object_store_memory": STORE, "_system_config": patience}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.names = {self.cluster.head_node.node_id: "head"}
        self.learner = self.add("learner", cpus=2)
        self.simulators = [self.add("simulator", cpus=1), self.add("simulator", cpus=1)]

    def add(self, kind: str, cpus: int) -> Any:
        node = self.cluster.add_node(num_cpus=cpus, resources={kind: cpus}, object_store_memory=STORE)
        count = sum(name.startswith(kind) for name in self.names.values())
        self.names[node.node_id] = f"{kind} {count + 1}"
        return node

    def where(self) -> dict[str, list[str]]:
        """The machines of all actors that ran in this cluster, by their class."""
        found: dict[str, set[str]] = defaultdict(set)
        for actor in actors().values():
            if node := self.names.get(actor["Address"]["NodeID"]):
                found[actor["ActorClassName"].rpartition(".")[2]].add(node)
        return {kind: sorted(nodes) for kind, nodes in found.items()}


def placement(checkpoint: Path, folder: Path, machines: Machines) -> dict[str, Any]:
    """Run the jobs, and say where their actors were."""
    store = f"sqlite:///{folder}/mlflow.db"
    ppo_libero.main(
        ppo_libero.Settings(
            checkpoint=checkpoint, suite=SUITE, recipe="tiny", updates=1, num_runners=2, simulators=1,
            fragment_decisions=4, isolate=False, placement="server", min_runners=2, train_gate=False,
            output=folder / "ppo",
            tracking_uri=store,
        )
    )  # fmt: skip
    trained = machines.where()
    evaluate.main(
        evaluate.Settings(
            checkpoint=checkpoint, suite=(SUITE,), thresholds=(), depths=(1,), episodes=2, videos=False,
            num_runners=2, isolate=False, placement="server", output=folder / "evaluation", tracking_uri=store,
        )
    )  # fmt: skip
    evaluated = machines.where()
    summary = json.loads((folder / "ppo/summary.json").read_text(encoding="utf-8"))
    return {"trained": trained, "evaluated": evaluated, "machines": summary["provenance"]["machines"]}


def cloning(checkpoint: Path, folder: Path, machines: Machines) -> dict[str, Any]:
    """Run the job, and say where its actors were."""
    demos = make_dataset(folder / "demos", episodes=4)
    cloning_job.run(
        cloning_job.Settings(
            demos=(str(demos),), preset="tiny", recipe="tiny", steps=10, workers=1, output=folder / "bc",
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
        ),
        calvin=False,
    )  # fmt: skip
    return {"cloned": machines.where()}


def losses(checkpoint: Path, folder: Path, machines: Machines) -> dict[str, Any]:
    """Lose a simulators' machine and the learner's while PPO trains, and get them back."""
    settings = Settings(
        num_runners=2, simulators=2, fragment_decisions=4, isolate=False, placement="server",
        output=folder, update_decisions=64, minibatch_decisions=16, epochs=6, policy_lr=1e-3,
    )  # fmt: skip
    simulator = SimulatorConfig(suite=SUITE, tasks=(0,), image_size=32)
    config = configure(settings, choose(settings), simulator, checkpoint).training(ledger=str(folder / "ledger.jsonl"))
    run, found = Run(config), dict[str, Any]()
    group, pool, first = run.algorithm.learner_group, run.algorithm.pool, run.algorithm.learner_group.policy()

    def updated(times: int) -> None:
        reached = group.version + times
        run.until(lambda: group.version >= reached)

    run.until(lambda: run.heard_of("1.0", "2.0"))
    found["begun"] = machines.where()

    # A simulators' machine goes, training does not mind, and whatever joins gets the runner.
    machines.cluster.remove_node(machines.simulators[0], allow_graceful=False)
    run.until(lambda: pool.present == 1)
    updated(3)
    found["alone"] = machines.where()
    machines.add("simulator", cpus=1)
    run.until(lambda: pool.present == 2)
    run.until(lambda: run.heard_of("1.1") or run.heard_of("2.1"))
    found["joined"] = machines.where()

    # The learner's machine goes, with the policy server, and comes back.
    updated(10)
    before, version, restarts = flatten(group.policy()).array.copy(), group.version, group.restarts
    machines.cluster.remove_node(machines.learner, allow_graceful=False)
    begun = time.monotonic()

    def come_back() -> None:  # from within training, which goes no further until then
        if time.monotonic() - begun > AWAY_S:
            run.algorithm.check = lambda: None
            machines.add("learner", cpus=2)

    run.algorithm.check = come_back
    run.until(lambda: group.restarts > restarts and not group.busy and group.version > version)
    after = flatten(group.policy()).array
    found["back_after_s"] = time.monotonic() - begun
    found["moved_since_then"] = float(np.linalg.norm(after - before))
    found["moved_since_the_start"] = float(np.linalg.norm(after - flatten(first).array))
    reported = len(run.reported)
    updated(5)
    run.until(lambda: len(run.reported) > reported + 10)
    found["returned"] = machines.where()
    found["runner_restarts"] = run.point["total/runner_restarts"]

    run.algorithm.settle()
    run.reported += [episode.episode_id for episode in run.algorithm.episodes if episode.episode_id not in run.reported]
    run.algorithm.stop()
    found["reported"] = run.reported
    found["ledger"] = [row["episode_id"] for row in read_ledger(folder / "ledger.jsonl")]
    return found


def main(checkpoint: Path, folder: Path, what: str) -> None:
    os.environ |= {SIMULATORS_ON: "simulator", LEARNERS_ON: "learner"}
    machines = Machines()
    connect(address=machines.cluster.address)
    found = {"placement": placement, "cloning": cloning, "losses": losses}[what](checkpoint, folder, machines)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    ray.shutdown()
    machines.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
