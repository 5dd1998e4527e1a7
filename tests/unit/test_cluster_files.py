"""The cluster files, as Ray reads them, and what they say about machines."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import moto.ec2
import pytest
import yaml

pytest.importorskip("ray.autoscaler")
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
FILES = ("aws", "gcp", "local")
CLOUDS = ("aws", "gcp")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())


def commands(config: dict[str, Any]) -> list[str]:
    return [command for key in config if key.endswith("_commands") for command in config[key]]


@pytest.fixture(scope="module")
def instances() -> dict[str, Any]:
    """AWS's own list of instance types, as moto brings it."""
    with gzip.open(Path(moto.ec2.__file__).parent / "resources" / "instance_types.json.gz") as file:
        return json.load(file)


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name):
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_a_misspelt_one(name):
    with pytest.raises(jsonschema.ValidationError, match="set_up_commands"):
        validate_config(prepare_config({**read(name), "set_up_commands": []}))


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_bash_and_every_script_is_there(name):
    for command in commands(read(name)):
        subprocess.run(["bash", "-n", "-c", command], check=True)
        for script in re.findall(r"~/avavla/(cluster/\S+)", command):
            assert (ROOT / script).exists()


@pytest.mark.parametrize("name", FILES)
def test_the_head_is_started_as_ray_looks_for_it(name):
    # Ray warns, and starts no machine, where it does not find both in one command.
    (start,) = [command for command in read(name)["head_start_ray_commands"] if "ray start" in command]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    assert "--num-cpus=0" in start
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("name", FILES)
def test_what_is_open_is_marked(name):
    lines = (ROOT / "cluster" / f"{name}.yaml").read_text().splitlines()
    assert [line for line in lines if "CHANGE-ME" in line and "# <--" not in line] == []
    assert any("# <--" in line for line in lines)


@pytest.mark.parametrize("name", FILES)
def test_every_machine_gets_what_describes_the_environment_and_the_token(name):
    mounts = read(name)["file_mounts"]
    for there, here in mounts.items():
        assert there == (here if here.startswith("~") else f"~/avavla/{here}")
        assert here.startswith("~") or (ROOT / here).exists()
    read_by_set_up = re.search(r"cat (.+) \| sha256sum", (ROOT / "cluster/setup.sh").read_text())
    for file in read_by_set_up.group(1).split():
        assert any(file == here or file.startswith(f"{here}/") for here in mounts.values())
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", CLOUDS)
def test_simulators_and_learners_share_no_machine(name):
    types = read(name)["available_node_types"]
    offers = {kind: set(given["resources"]) & {"simulator", "learner"} for kind, given in types.items()}
    assert offers == {
        "head": set(), "learner": {"learner"}, "simulator_spot": {"simulator"}, "simulator_on_demand": {"simulator"}
    }  # fmt: skip
    assert types["head"]["resources"]["CPU"] == 0
    assert types["simulator_spot"]["priority"] > types["simulator_on_demand"]["priority"]
    on_demand = dict(types["simulator_spot"]["node_config"])
    assert on_demand.pop("InstanceMarketOptions", None) or on_demand.pop("scheduling")["provisioningModel"] == "SPOT"
    assert on_demand == types["simulator_on_demand"]["node_config"]


def test_aws_machines_have_what_the_file_says(instances):
    types = read("aws")["available_node_types"]
    for kind in ("simulator_spot", "simulator_on_demand"):
        instance = instances[types[kind]["node_config"]["InstanceType"]]
        assert types[kind]["resources"]["simulator"] == instance["VCpuInfo"]["DefaultVCpus"]
        assert instance["VCpuInfo"]["DefaultThreadsPerCore"] == 1
        assert "GpuInfo" not in instance
    assert instances[types["learner"]["node_config"]["InstanceType"]]["GpuInfo"]["Gpus"][0]["Manufacturer"] == "NVIDIA"
    for given in types.values():
        config = given["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
    profiles = {kind: given["node_config"]["IamInstanceProfile"]["Name"] for kind, given in types.items()}
    assert profiles.pop("head") == "avavla-head"
    assert set(profiles.values()) == {"avavla-worker"}


@pytest.mark.parametrize("who", ["head", "person"])
def test_machines_and_firewalls_of_others_are_left_alone(who):
    found = set()
    for statement in json.loads((ROOT / f"cluster/iam/{who}.json").read_text())["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        changes = {"ec2:AuthorizeSecurityGroupIngress", "ec2:TerminateInstances"} & set(actions)
        if changes:
            assert statement["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "$cluster"}}
            found |= changes
    assert "ec2:TerminateInstances" in found
    assert ("ec2:AuthorizeSecurityGroupIngress" in found) == (who == "person")


def test_no_file_holds_a_secret():
    pattern = re.compile(
        r"AKIA[0-9A-Z]{12}|aws_secret|BEGIN [A-Z ]*PRIVATE KEY|password\s*[:=]|token\s*=\s*\S", re.IGNORECASE
    )
    for path in (ROOT / "cluster").rglob("*"):
        if path.is_file() and path.suffix in {".yaml", ".sh", ".py", ".json", ".yml"}:
            assert not pattern.search(path.read_text()), path
