"""cluster/local.yaml from end to end: `ray up` on three machines that are owned, a job on them, `ray down`.

The machines are folders of this one (`tests/support/stand_in_machines.py`); Ray, its launcher and autoscaler, MLflow,
cluster/node.sh and the file itself are the real ones.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.launcher import launcher

ROOT = Path(__file__).resolve().parents[2]

JOB = """
import json, os, ray
ray.init()
assert os.environ["AVAVLA_SIMULATORS_ON"] == "simulator" and os.environ["AVAVLA_LEARNERS_ON"] == "learner"

@ray.remote(num_cpus=1, resources={"simulator": 1, "learner": 0.01})
class Actor:
    def where(self):
        return ray.get_runtime_context().get_node_id()

where = ray.get(Actor.remote().where.remote())
nodes = [(n["NodeID"] == where, n["Labels"].get("kind"), n["Resources"]) for n in ray.nodes()]
print("NODES", json.dumps(sorted(nodes, key=str)), flush=True)
print("RUNS", os.environ["AVAVLA_RUNS"], flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_machines_say_what_they_are(tmp_path):
    text = (ROOT / "cluster/local.yaml").read_text()
    for open_one, filled in (
        ("/CHANGE-ME", str(tmp_path / "store")),
        ("CHANGE-ME", "robot"),
        ("~/.ssh/id_ed25519", str(tmp_path / "key")),
    ):
        text = text.replace(open_one, filled, 1)
    (tmp_path / "store").mkdir()
    (tmp_path / "key").write_text("of SSH, which nothing here asks for\n")
    file = tmp_path / "local.yaml"
    file.write_text(text)
    (tmp_path / "job").mkdir()
    (tmp_path / "job/job.py").write_text(JOB)
    with launcher(person={}, machine={}, others=("AVAVLA_KIND=both",)) as person:
        said = person.types("ray", "up", "-y", "--no-config-cache", str(file))
        assert "will not launch any workers" not in said
        said = person.submits(tmp_path / "job")
        nodes = json.loads(re.search(r"NODES (.*)", said).group(1))
        cpus = len(os.sched_getaffinity(0))
        offers = sorted(
            (kind or "head", used, r.get("simulator"), r.get("learner"), r.get("CPU")) for used, kind, r in nodes
        )
        assert ("both", True, cpus, 1.0, cpus) in offers
        assert ("head", False, None, None, None) in offers
        assert f"RUNS {tmp_path}/store/runs" in said
        assert person.types("ray", "get-head-ip", str(file)).split()[-1] == "192.0.2.10"
        person.types("ray", "down", "-y", str(file))
        assert any(sent["host"] == "192.0.2.10" and "ray stop" in sent["what"] for sent in person.machines.sent()[-3:])
