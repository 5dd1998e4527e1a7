#!/usr/bin/env python
"""Prepares an AWS account for `ray up cluster/aws.yaml`: the bucket, and who may do what. For an administrator, once.

    python cluster/aws_account.py                     makes what is missing, and says so; safe to repeat
    python cluster/aws_account.py --print head        shows a policy (head, worker or person), and makes nothing

Region and bucket are those of cluster/aws.yaml, credentials those of the environment. What it makes: a private bucket,
unless it is there; a role for the head and one for all other machines, each with its policy of cluster/iam; a policy
avavla-person, to attach to whoever types `ray up`; and the role with which AWS itself starts spot machines.
"""

from __future__ import annotations

import argparse
import json
import re
import string
import sys
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import yaml

HERE = Path(__file__).resolve().parent
ROLES = ("head", "worker")
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


class Unset(Exception):
    """The cluster file leaves open what only its owner can know."""


def read_cluster(path: Path) -> dict[str, str]:
    """Region, bucket and name of a cluster file.

    Raises:
        Unset: one of them is not there.
    """
    config = yaml.safe_load(path.read_text())
    region = config["provider"].get("region") or ""
    said = re.findall(r"AVAVLA_STORE=s3://([^\s'\"/]+)", "\n".join(config.get("setup_commands", [])))
    open_ones = [name for name, value in (("region", region), ("bucket", said[-1] if said else "")) if not value]
    if said and "CHANGE-ME" in said[-1]:
        open_ones.append("bucket")
    if open_ones:
        raise Unset(f"{path} does not say which {' and which '.join(open_ones)}: change the lines marked with <--")
    return {"region": region, "bucket": said[-1], "cluster": config["cluster_name"]}


def policy(name: str, values: dict[str, str]) -> str:
    """JSON of cluster/iam/NAME.json, for this account."""
    text = string.Template((HERE / "iam" / f"{name}.json").read_text()).substitute(values)
    return json.dumps(json.loads(text), indent=2)


def make_bucket(session: Any, region: str, bucket: str) -> None:
    """Private, and rid of what broken uploads leave; one that is there stays as it is."""
    client = session.client("s3")
    try:
        client.head_bucket(Bucket=bucket)
        print(f"bucket {bucket}: there already")
        return
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=bucket, **where)
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True))
    rule = {
        "ID": "broken-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    print(f"bucket {bucket}: made")


def make_roles(session: Any, values: dict[str, str]) -> None:
    """Of the machines, which they take on as instance profiles of the same name."""
    client = session.client("iam")
    for kind in ROLES:
        name = f"avavla-{kind}"
        trust = json.dumps(TRUST)
        _make(f"role {name}", lambda: client.create_role(RoleName=name, AssumeRolePolicyDocument=trust))  # noqa: B023
        client.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=policy(kind, values))
        _make(f"instance profile {name}", lambda: client.create_instance_profile(InstanceProfileName=name))  # noqa: B023
        profile = client.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        if not profile["Roles"]:
            client.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    _make(
        "role of AWS for spot machines",
        lambda: client.create_service_linked_role(AWSServiceName="spot.amazonaws.com"),
    )  # fmt: skip


def make_persons_policy(session: Any, values: dict[str, str]) -> str:
    """Of whoever types `ray up`. Returns its ARN."""
    client = session.client("iam")
    arn, document = f"arn:aws:iam::{values['account']}:policy/avavla-person", policy("person", values)
    made = _make(
        "policy avavla-person",
        lambda: client.create_policy(PolicyName="avavla-person", PolicyDocument=document),
    )  # fmt: skip
    if not made:  # as it is now; of the five versions that AWS keeps, the old ones make room
        for version in client.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                client.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        client.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
    return arn


def _make(what: str, make: Any) -> bool:
    """Whether it was made now; False where it was there."""
    try:
        make()
    except botocore.exceptions.ClientError as error:
        # AWS's own role says it the second way.
        if error.response["Error"]["Code"] not in ("EntityAlreadyExists", "InvalidInput"):
            raise
        print(f"{what}: there already")
        return False
    print(f"{what}: made")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cluster", type=Path, default=HERE / "aws.yaml", help="the cluster file")
    parser.add_argument("--print", choices=("head", "worker", "person"), dest="shown", help="only show this policy")
    given = parser.parse_args()
    try:
        values = read_cluster(given.cluster)
        session = boto3.Session(region_name=values["region"])
        identity = session.client("sts").get_caller_identity()
        values["account"] = identity["Account"]
        if given.shown is not None:
            print(policy(given.shown, values))
            return 0
        make_bucket(session, values["region"], values["bucket"])
        make_roles(session, values)
        arn = make_persons_policy(session, values)
    except (Unset, OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"attach {arn} to whoever types `ray up`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
