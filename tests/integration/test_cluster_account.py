"""cluster/aws_account.py against a local moto server, which answers as AWS does; no account is reached."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
    }
    server.stop()


@pytest.fixture
def client(environment):
    def make(service: str):
        return boto3.client(
            service, endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="eu-central-1",
            aws_access_key_id="anyone", aws_secret_access_key="anything",
        )  # fmt: skip

    return make


@pytest.fixture
def cluster(tmp_path):
    """The project's own file, with what only its owner knows."""
    text = (ROOT / "cluster/aws.yaml").read_text()
    path = tmp_path / "aws.yaml"
    path.write_text(text.replace("s3://CHANGE-ME", "s3://our-robots").replace("us-east-1", "eu-central-1"))
    return path


def account(environment, *arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cluster/aws_account.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)


def test_what_is_still_open_is_named_before_anything_is_made(environment):
    done = account(environment)
    assert done.returncode == 2
    assert "does not say which bucket: change the lines marked with <--" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_account_gets_bucket_roles_and_policies_and_keeps_them(environment, client, cluster):
    done = account(environment, "--cluster", cluster)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": made") == 7

    s3, iam = client("s3"), client("iam")
    assert s3.get_bucket_location(Bucket="our-robots")["LocationConstraint"] == "eu-central-1"
    closed = s3.get_public_access_block(Bucket="our-robots")["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    for name in ("avavla-head", "avavla-worker"):
        (role,) = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
        assert role["RoleName"] == name
        document = iam.get_role_policy(RoleName=name, PolicyName=name)["PolicyDocument"]
        text = json.dumps(document)
        assert not re.search(r"\$(region|account|bucket|cluster)", text)
        assert "arn:aws:s3:::our-robots/*" in text
        assert not iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert "ec2" not in json.dumps(
        iam.get_role_policy(RoleName="avavla-worker", PolicyName="avavla-worker")["PolicyDocument"]
    )

    # Again: nothing twice, and a policy that was altered is as it should be.
    narrow = account(environment, "--cluster", cluster, "--print", "worker").stdout
    iam.put_role_policy(RoleName="avavla-head", PolicyName="avavla-head", PolicyDocument=narrow)
    for _ in range(2):
        done = account(environment, "--cluster", cluster)
        assert done.returncode == 0, done.stderr
        assert "our-robots: there already" in done.stdout
    assert "RunInstances" in json.dumps(
        iam.get_role_policy(RoleName="avavla-head", PolicyName="avavla-head")["PolicyDocument"]
    )
    arn = re.search(r"arn:\S+avavla-person", done.stdout).group()
    assert len(iam.list_policy_versions(PolicyArn=arn)["Versions"]) == 2


@pytest.mark.parametrize("name", ["head", "worker", "person"])
def test_a_policy_allows_no_action_at_large(environment, cluster, name):
    done = account(environment, "--cluster", cluster, "--print", name)
    assert done.returncode == 0, done.stderr
    for statement in json.loads(done.stdout)["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in actions)
        # AWS knows no narrower form for what only looks.
        assert statement["Resource"] != "*" or all(action.startswith("ec2:Describe") for action in actions)
