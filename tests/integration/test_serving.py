"""jobs/serve.py on a cluster, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray import serve

from actors.serving.faults import Fault
from actors.serving.messages import Answer, BeliefArrays
from actors.serving.preparing import Preparer
from actors.serving.start import remote_decide
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.policies import some_statistics, stirred_policy, tiny
from tests.support.processes import wait_until_gone
from tests.support.serving import Client, body, observation, write_checkpoint

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]


class Job:
    """A running jobs/serve.py."""

    def __init__(self, checkpoint, *words):
        self.checkpoint = checkpoint
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "jobs/serve.py", "--checkpoint", str(checkpoint), "--port", "0", *words],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**clean, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        )  # fmt: skip

    def wait_until_ready(self):
        self.line = next((line for line in self.process.stdout if "http://" in line), "")
        assert self.line, self.process.stderr.read()
        self.address = self.line.split("http://")[1].strip()

    def forget_complaints(self):
        """Of failures that tests have provoked."""
        pipe = self.process.stderr.fileno()
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(pipe, 65536):
                pass
        os.set_blocking(pipe, True)

    def policy(self):
        """Handle of what Serve keeps alive."""
        names = [name for name in serve.status().applications if name.endswith(f"-{self.address.split(':')[1]}")]
        return serve.get_app_handle(*names)


@pytest.fixture(scope="module")
def job(ray_cluster, tmp_path_factory):
    job = Job(write_checkpoint(tmp_path_factory.mktemp("serving") / "policy"), "--replicas", "2")
    job.wait_until_ready()
    yield job
    job.process.kill()
    job.process.wait()


@pytest.fixture(scope="module")
def policy(job):
    return AvaVlaPolicy.from_checkpoint(job.checkpoint)


@pytest.fixture
def client(job):
    return Client(job.address)


def test_says_where_it_is_when_it_is_ready(job, client):
    digest = client.good("GET", "/health")["policy"]
    assert job.line == f"serving tiny policy {digest[:12]}, cpu, float32 at http://{job.address}\n"
    assert job.address.startswith("127.0.0.1:")


@pytest.mark.parametrize("keeper", ["server", "client"])
def test_an_episode_over_http_is_the_one_that_the_policy_decides(client, policy, keeper):
    more, belief = {}, None
    if keeper == "server":
        more = {"session": client.good("POST", "/sessions")["session"]}
    for seed in range(4):
        decision = policy.act(**observation(seed), belief=belief)
        belief = decision.belief
        answer = client.good("POST", "/act", body(seed, **more))
        np.testing.assert_allclose(answer["actions"], decision.actions, atol=1e-6)
        np.testing.assert_allclose(answer["exit_scores"], decision.exit_scores, atol=1e-6)
        assert answer["latent_steps"] == decision.latent_steps
        if keeper == "client":
            more = {"belief": answer["belief"]}


def test_sixteen_robots_at_once(job, policy):
    def drive(seed):
        client = Client(job.address)
        session = client.good("POST", "/sessions")["session"]
        answers = [client.good("POST", "/act", body(seed + step, session=session)) for step in range(4)]
        client.good("DELETE", f"/sessions/{session}")
        return answers

    with ThreadPoolExecutor(16) as pool:
        robots = list(pool.map(drive, range(16)))
    for seed, answers in enumerate(robots):
        belief = None
        for step, answer in enumerate(answers):
            decision = policy.act(**observation(seed + step), belief=belief)
            belief = decision.belief
            np.testing.assert_allclose(answer["actions"], decision.actions, atol=1e-5)
    assert max(answer["batch"] for answers in robots for answer in answers) > 1
    assert Client(job.address).good("GET", "/health")["batch_mean"] > 1


def test_the_client_of_the_documentation_drives_it(job):
    result = subprocess.run(
        [sys.executable, "docs/robot_client.py", f"http://{job.address}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    actions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(action) for action in actions] == [7] * 5


def test_a_robot_whose_belief_makes_nan_is_refused_alone(job, client):
    """Past the HTTP side, which refuses such a belief: straight to the policy."""
    facts = job.policy().facts.remote().result()
    prepare = Preparer(facts, None)
    huge = BeliefArrays(*(np.full(shape, 3e38, np.float32) for shape in (facts.hidden, facts.history)))
    asks = [prepare(**observation(seed), belief=huge if seed == 1 else None, unnorm_key=None) for seed in range(3)]
    found = asyncio.run(remote_decide(job.policy())(asks))
    assert [type(one) for one in found] == [Answer, InputError, Answer]
    shapeless = dataclasses.replace(asks[0], text=asks[0].text[:3])
    with pytest.raises(Fault, match="^the policy failed to decide: the server's log says why$"):
        asyncio.run(remote_decide(job.policy())([asks[0], shapeless]))


def test_policies_that_die_come_back_and_no_belief_is_lost(job, policy):
    handle = job.policy()
    dead = set()
    while len(dead) < 2:
        dead.add(handle.pid.remote().result())
    killed = threading.Event()

    def drive(seed):
        """Six decisions; the third comes after the policies' death."""
        client = Client(job.address)
        session = client.good("POST", "/sessions")["session"]
        answers, refusals = [], []
        while len(answers) < 6:
            if len(answers) == 2:
                killed.wait(30)
            status, answer = client.call("POST", "/act", body(seed + len(answers), session=session))
            (answers if status == 200 else refusals).append(answer)
            assert status in (200, 503)
        return answers, refusals

    with ThreadPoolExecutor(4) as pool:
        robots = [pool.submit(drive, 10 * number) for number in range(4)]
        time.sleep(0.3)
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        killed.set()
        for number, robot in enumerate(robots):
            answers, refusals = robot.result(60)
            assert all("send the request once more, its belief is kept" in one["error"] for one in refusals)
            belief = None
            for step, answer in enumerate(answers):
                decision = policy.act(**observation(10 * number + step), belief=belief)
                belief = decision.belief
                np.testing.assert_allclose(answer["actions"], decision.actions, atol=1e-5)
    assert handle.pid.remote().result() not in dead


def test_a_policy_that_cannot_decide_ends_the_job_with_one_line(job, tmp_path):
    place = tmp_path / "policy"
    policy = stirred_policy(tiny())
    with torch.no_grad():
        policy.encoder.start.bias.fill_(torch.nan)
    save_checkpoint(place, policy, some_statistics(7, 8), stage="bc", provenance={})
    other = Job(place)
    _, complaint = other.process.communicate(timeout=120)
    assert other.process.returncode == 2, complaint
    last = complaint.splitlines()[-1]
    assert last.startswith("error: ")
    assert "no numbers" in last
    assert "Traceback" not in complaint
    assert len(serve.status().applications) == 1


def test_sigterm_while_starting_leaves_nothing_behind(job):
    other = Job(job.checkpoint)
    end = time.monotonic() + 60
    while len(serve.status().applications) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    other.process.send_signal(signal.SIGTERM)
    _, complaint = other.process.communicate(timeout=60)
    assert (other.process.returncode, complaint.splitlines()[-1:]) == (1, ["interrupted"])
    assert len(serve.status().applications) == 1


def test_a_port_in_use_is_refused(job):
    port = job.address.split(":")[1]
    other = Job(job.checkpoint, "--port", port)
    assert other.process.wait(60) == 2
    assert (
        other.process.stderr.read()
        == f"error: --host 127.0.0.1 --port {port}: Address already in use: give another one\n"
    )


def test_ends_with_status_0_when_told_to(job):
    pid = job.policy().pid.remote().result()
    job.forget_complaints()
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(30) == 0
    assert "Traceback" not in job.process.stderr.read()
    assert not serve.status().applications
    wait_until_gone({pid})
    with socket.socket() as probe:
        host, port = job.address.split(":")
        assert probe.connect_ex((host, int(port))) != 0
