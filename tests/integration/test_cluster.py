"""Joining and starting Ray: what `connect` does when another cluster is there, or none is."""

import os
import subprocess
import sys
from pathlib import Path

import ray

ROOT = Path(__file__).resolve().parents[2]
CALL = """
import sys
from avavla_ray.errors import InputError
from actors.cluster import connect
try:
    connect()
except InputError as error:
    sys.exit(f"error: {error}")
import ray
print(ray.get(ray.remote(lambda: __import__("os").environ["MUJOCO_GL"]).remote()))
"""


def call(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", CALL], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def test_a_cluster_that_already_runs_is_named_instead_of_joined_by_chance(ray_cluster):
    result = call()
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("error: a Ray cluster is already running on this machine at")
    assert "RAY_ADDRESS=" in message


def test_a_named_cluster_is_joined_with_our_environment(ray_cluster):
    result = call(RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1] == "egl"


def test_an_address_without_a_cluster_is_named():
    result = call(RAY_ADDRESS="127.0.0.1:9")
    assert result.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:9" in result.stderr


def test_a_resource_that_no_machine_offers_is_named(ray_cluster):
    result = call(RAY_ADDRESS=ray.get_runtime_context().gcs_address, AVAVLA_SIMULATORS_ON="gripper")
    assert result.returncode == 0, result.stderr
    assert "simulators run on machines that offer gripper\nno machine of the cluster offers gripper" in result.stdout
