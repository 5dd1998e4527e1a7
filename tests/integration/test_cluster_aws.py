"""cluster/aws.yaml from end to end: `ray up`, a job, machines that come and go, `ray down`.

There is no AWS here. A moto server answers in its place, and no address but its own is asked. The machines that it
hands out don't exist: `tests/support/stand_in_machines.py` runs on this one what is sent to them. Ray, its autoscaler
and launcher, MLflow, cluster/node.sh and the file itself are the real ones, started by the commands that the file says.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import boto3
import pytest
import requests

from tests.support.launcher import launcher
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"

# Three simulator actors that fill a machine and a half, and a learner, as jobs ask for them.
JOB = """
import collections, json, os, ray
ray.init()

@ray.remote
class Actor:
    def where(self):
        node = ray.get_runtime_context().get_node_id()
        return next(n["Labels"] for n in ray.nodes() if n["NodeID"] == node)

simulates, learns = os.environ["AVAVLA_SIMULATORS_ON"], os.environ["AVAVLA_LEARNERS_ON"]
actors = {
    "simulator": [Actor.options(num_cpus=1, resources={simulates: 16}).remote() for _ in range(3)],
    "learner": [Actor.options(num_cpus=1, num_gpus=1, resources={learns: 0.01}).remote()],
}
for kind, of_kind in actors.items():
    labels = [ray.get(actor.where.remote()) for actor in of_kind]
    print("PLACED", kind, json.dumps(sorted({l["kind"] + "/" + l["market"] for l in labels})), flush=True)
head = next(n for n in ray.nodes() if n["Labels"].get("kind") == "head")
print("HEAD", json.dumps(head["Resources"]), flush=True)
print("RUNS", os.environ["AVAVLA_RUNS"], os.environ["MLFLOW_TRACKING_URI"], flush=True)
import mlflow
mlflow.set_experiment("tried")
with mlflow.start_run():
    mlflow.log_metric("m", 1.0)
    mlflow.log_text("said", "note.txt")
"""


def wait_for(what, seconds: float):
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.5)
    return value


@pytest.fixture
def cloud(tmp_path):
    """Address of a moto server of its own, which writes down every request."""
    port = free_port()
    environment = {
        **os.environ, "MOTO_ENABLE_RECORDING": "1", "MOTO_RECORDER_FILEPATH": str(tmp_path / "requests.jsonl")
    }  # fmt: skip
    log = open(tmp_path / "moto.log", "w")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{address}/moto-api/", timeout=2).ok
        except requests.RequestException:
            return False

    wait_for(answers, 60)
    yield address
    server.kill()
    server.wait()
    log.close()


@pytest.fixture
def keys(cloud):
    """By whom requests are signed is how the test tells who made them."""

    def make(who: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": cloud, "AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    return make


def actions(requests_file: Path, who: str) -> set[str]:
    """What one of them asked of EC2 and others that take forms, as policies name it."""
    seen = set()
    for line in requests_file.read_text().splitlines():
        entry = json.loads(line)
        signed = entry["headers"].get("Authorization", "")
        if f"Credential={who}/" not in signed:
            continue
        service = signed.split("Credential=")[1].split("/")[3]
        body = base64.b64decode(entry["body"]).decode(errors="replace") if entry["body_encoded"] else entry["body"]
        for action in urllib.parse.parse_qs(body or "").get("Action", []):
            seen.add(f"{service}:{action}")
    return seen


def allowed(name: str) -> set[str]:
    statements = json.loads((ROOT / f"cluster/iam/{name}.json").read_text())["Statement"]
    return {action for s in statements for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_ray_up_to_ray_down(cloud, keys, tmp_path):
    text = (ROOT / "cluster/aws.yaml").read_text().replace("s3://CHANGE-ME", "s3://our-robots")
    text = text.replace("idle_timeout_minutes: 5", "idle_timeout_minutes: 0.2").replace(
        "_timeout_s: 900", "_timeout_s: 12"
    )
    file = tmp_path / "aws.yaml"
    file.write_text(text)
    (tmp_path / "job").mkdir()
    (tmp_path / "job/job.py").write_text(JOB)
    with launcher(person=keys("person"), machine=keys("head")) as person:
        person.types(sys.executable, "cluster/aws_account.py", "--cluster", str(file), **keys("administrator"))
        ec2 = client(cloud, "ec2")
        check_head(ec2, person, person.types("ray", "up", "-y", "--no-config-cache", str(file)))
        assert person.types("ray", "get-head-ip", str(file)).split()[-1] == instances(ec2)[0]["PublicIpAddress"]

        # Machines are asked for, of the kinds that the job's actors want, and join.
        said = person.submits(tmp_path / "job")
        assert 'PLACED simulator ["simulator/spot"]' in said
        assert 'PLACED learner ["learner/on-demand"]' in said
        offered = json.loads(re.search(r"HEAD (.*)", said).group(1))
        assert not {"CPU", "GPU", "simulator", "learner"} & set(offered)
        assert f"RUNS s3://our-robots/runs http://{person.address}:{person.ports['mlflow']}" in said
        check_workers(ec2)
        stored = [
            entry["Key"] for entry in client(cloud, "s3").list_objects_v2(Bucket="our-robots").get("Contents", [])
        ]
        assert any(re.fullmatch(r"mlflow/artifacts/.*/note\.txt", key) for key in stored), stored

        # Nobody needs them any more.
        wait_for(lambda: [tags(machine)["ray-user-node-type"] for machine in instances(ec2)] == ["head"], 180)
        assert "No nodes remaining" in person.types("ray", "down", "-y", str(file))
        assert instances(ec2) == []

    # Neither more nor less of EC2 than the policies allow. (What AWS asks for behind that, to hand over a role or to
    # find an image, moto does not.)
    for who in ("head", "person"):
        asked = actions(tmp_path / "requests.jsonl", who)
        assert asked == {action for action in allowed(who) if action.startswith("ec2:")}


def client(cloud: str, service: str):
    return boto3.client(
        service, region_name=REGION, endpoint_url=cloud, aws_access_key_id="test", aws_secret_access_key="test"
    )


def instances(ec2, *states: str) -> list[dict]:
    """Those that run, or that are in one of these states."""
    wanted = [{"Name": "instance-state-name", "Values": list(states or ("running",))}]
    return [
        one
        for reservation in ec2.describe_instances(Filters=wanted)["Reservations"]
        for one in reservation["Instances"]
    ]


def tags(instance: dict) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def security_group(ec2) -> dict:
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["avavla"]}])["SecurityGroups"]
    return group


def check_head(ec2, person, said: str) -> None:
    assert "Failed to autodetect" not in said
    assert "Ray runtime will not be started" not in said
    assert "will not launch any workers" not in said
    (head,) = instances(ec2)
    assert head["InstanceType"] == "m7i.xlarge"
    assert (tags(head)["ray-node-type"], tags(head)["ray-user-node-type"]) == ("head", "head")
    assert tags(head)["ray-cluster-name"] == tags(head)["project"] == "avavla"
    assert head["IamInstanceProfile"]["Arn"].endswith("/avavla-head")
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert head.get("InstanceLifecycle") != "spot"
    # From everywhere there is SSH, from the group itself everything.
    group = security_group(ec2)
    assert [given["GroupId"] for given in head["SecurityGroups"]] == [group["GroupId"]]
    to_all = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule.get("Ipv6Ranges")]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in to_all] == [(22, 22)]
    (within,) = [rule for rule in group["IpPermissions"] if rule["UserIdGroupPairs"]]
    assert {pair["GroupId"] for pair in within["UserIdGroupPairs"]} == {group["GroupId"]}
    assert [key.stat().st_mode & 0o777 for key in (person.home / ".ssh").glob("*.pem")] == [0o600]


def check_workers(ec2) -> None:
    workers = [
        one
        for one in instances(ec2, "running", "shutting-down", "terminated")
        if tags(one)["ray-node-type"] == "worker"
    ]
    kinds = sorted(
        (tags(one)["ray-user-node-type"], one["InstanceType"], one.get("InstanceLifecycle")) for one in workers
    )
    spot = ("simulator_spot", "c7a.8xlarge", "spot")
    assert kinds == [("learner", "g6.2xlarge", None), spot, spot]
    for worker in workers:
        assert worker["IamInstanceProfile"]["Arn"].endswith("/avavla-worker")
        assert tags(worker)["ray-cluster-name"] == tags(worker)["project"] == "avavla"
        assert [given["GroupId"] for given in worker["SecurityGroups"]] == [security_group(ec2)["GroupId"]]
