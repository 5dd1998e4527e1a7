"""A policy server beside a copy in the runner: the same fragments, whatever becomes of the server."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from actors.env_runner import SimulatorEnvRunner
from actors.orders import Order
from actors.placement import PolicyCopy, PolicyServerLost, Question
from actors.policy_server import ServedPolicy, start_policy_servers
from actors.rollout import Rollout
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import flatten
from tests.support.fragments import POINT
from tests.support.point_simulator import PointSimulator, make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny

pytestmark = pytest.mark.ray


def published(policy: AvaVlaPolicy, version: int = 0) -> WeightHandle:
    return WeightHandle(version, (ray.put(flatten(policy)),))


@contextlib.contextmanager
def serving(policy: AvaVlaPolicy, count: int = 1, **options: Any) -> Iterator[list[Any]]:
    servers = start_policy_servers(count, policy.config, batch=16, num_cpus=0.1, **options)
    try:
        yield servers
    finally:
        for server in servers:
            ray.kill(server)


def served(servers: list[Any], policy: AvaVlaPolicy, handle: WeightHandle, **options: Any) -> ServedPolicy:
    placement = ServedPolicy(servers, policy.config, point_statistics(), **options)
    placement.use(handle)
    return placement


def question(policy: AvaVlaPolicy, rows: int = 2, seed: int = 0) -> Question:
    """Two observations, of which the last is not decided."""
    observations = [PointSimulator(POINT).reset(0, seed=seed + row) for row in range(rows)]
    translation = PolicyCopy(policy, point_statistics()).translation
    config, random = policy.config, np.random.default_rng(seed)
    hidden = random.standard_normal((rows, config.action_tokens, config.backbone.width), np.float32)
    history = random.standard_normal((rows, config.latent.width), np.float32)
    latent = random.standard_normal((rows - 1, config.latent.max_steps, config.latent.update_dim), np.float32)
    return Question(translation.inputs(observations), hidden, history, latent, None, None)


def pid_of(server: Any) -> int:
    """Of the server's process, as soon as it has one."""
    while True:
        with contextlib.suppress(ray.exceptions.ActorUnavailableError):
            return ray.get(server.statistics.remote())["pid"]
        time.sleep(0.2)


def play(placement: Any, handle: WeightHandle) -> list[Fragment]:
    rollout = Rollout(placement, make_point_simulator, POINT, simulators=3, slots=3, seed=(5,), name="run")
    fragments = [
        fragment for _ in range(3) for fragment in rollout.deliver(Order(handle, 8, lockstep=True))[0]
    ]  # fmt: skip
    rollout.close()
    return fragments


def assert_alike(ones: list[Fragment], others: list[Fragment]) -> None:
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        for name in ("steps", "task", "duration", "terminated", "truncated", "reward", "episode", "version"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for name in ("z", "u", "log_prob", "next_z", "encoding", "tokens"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4)
        assert one.episode_ids == other.episode_ids
        assert one.finished == other.finished


def test_copy_and_server_give_the_same_fragments_even_if_the_server_dies(ray_cluster: dict) -> None:
    policy = stirred_policy(tiny()).eval()
    handle = published(policy)
    undisturbed = play(PolicyCopy(policy, point_statistics(), version=0), handle)
    with serving(policy) as (server,):
        assert_alike(play(served([server], policy, handle), handle), undisturbed)
        killed = [pid_of(server)]

        class Killing(ServedPolicy):
            """Kills its server while it is asked the 11th time."""

            asked = 0

            def ask(self, question: Question) -> Any:
                self.asked += 1
                if self.asked == 11:
                    os.kill(killed[0], signal.SIGSTOP)  # so that it surely has not answered yet
                    ticket = super().ask(question)
                    assert not ticket.done
                    os.kill(killed[0], signal.SIGKILL)
                    return ticket
                return super().ask(question)

        placement = Killing([server], policy.config, point_statistics())
        assert_alike(play(placement, handle), undisturbed)
        assert pid_of(server) not in killed


def test_another_server_answers_for_one_that_dies_and_a_hanging_one_is_ended(ray_cluster: dict) -> None:
    policy = stirred_policy(tiny()).eval()
    handle, asked = published(policy), question(policy)
    expected = PolicyCopy(policy, point_statistics(), version=0).ask(asked).result()
    with serving(policy, 2) as servers:
        pids = [pid_of(server) for server in servers]
        placement = served(servers, policy, handle, timeout_s=2.0)
        for placement.at in (1, 0):  # both have answered
            placement.ask(asked).result()
        os.kill(pids[0], signal.SIGSTOP)
        answer = placement.ask(asked).result()
        np.testing.assert_allclose(answer.rows["chunk"], expected.rows["chunk"], atol=1e-5)
        np.testing.assert_allclose(answer.z0, expected.z0, atol=1e-5)
        assert pid_of(servers[0]) != pids[0]  # Ray has started it again
        assert ray.get(servers[1].statistics.remote())["questions"] == 2
        placement.ask(asked).result()  # sticks to the one that it has gone to
        assert ray.get(servers[1].statistics.remote())["questions"] == 3
        placement.close()


def test_a_runner_without_a_server_gives_up_in_bounded_time(ray_cluster: dict) -> None:
    policy = stirred_policy(tiny()).eval()
    handle = published(policy)
    with serving(policy) as (server,):
        placement = served([server], policy, handle, timeout_s=30.0, start_s=30.0)
        rollout = Rollout(placement, make_point_simulator, POINT, simulators=2, slots=2)
        rollout.deliver(Order(handle, 3, lockstep=True))
        ray.kill(server)  # for good
        placement.timeout_s, placement.start_s = 1.0, 1.0
        fragments, report = rollout.deliver(Order(handle, 3))
        assert "no policy server has answered for 2 s" in str(report.failure)
        assert sum(map(len, fragments)) == report.decisions
        with pytest.raises(PolicyServerLost):
            rollout.deliver(Order(handle, 3))
        rollout.close()


def test_weights_are_swapped_between_batches_and_never_inside_one(ray_cluster: dict) -> None:
    policies = [stirred_policy(tiny(), seed=seed).eval() for seed in range(4)]
    handles = [published(policy, version) for version, policy in enumerate(policies)]
    with serving(policies[0]) as (server,):
        asked = [question(policies[0], seed=number) for number in range(64)]
        answers = ray.get([server.decide.remote(one, handles[number // 16]) for number, one in enumerate(asked)])
        versions = defaultdict[int, set[int]](set)
        for number, (one, answer) in enumerate(zip(asked, answers, strict=True)):
            versions[answer.batch].add(answer.version)
            assert answer.version >= number // 16
            copy = PolicyCopy(policies[answer.version], point_statistics(), version=answer.version)
            expected = copy.ask(one).result()
            np.testing.assert_allclose(answer.rows["z"], expected.rows["z"], atol=1e-4)
            np.testing.assert_allclose(answer.z0, expected.z0, atol=1e-4)
        assert all(len(of_batch) == 1 for of_batch in versions.values())
        assert [min(versions[batch]) for batch in sorted(versions)] == sorted(min(of) for of in versions.values())
        assert len(versions) < len(asked)
        assert max(answer.together for answer in answers) == 8  # 16 observations


def test_what_several_runners_ask_is_decided_together(ray_cluster: dict) -> None:
    policy = stirred_policy(tiny()).eval()
    handle = published(policy)
    config = AsyncPPOConfig().env_runners(num_envs_per_env_runner=4).debugging(seed=1)
    config = config.training(simulator=POINT, make_simulator=make_point_simulator, isolate=False)
    with serving(policy) as servers:
        runners = [
            ray.remote(num_cpus=0.5)(SimulatorEnvRunner).remote(config=config, worker_index=index, num_workers=3)
            for index in (1, 2, 3)
        ]
        ray.get([
            runner.start.remote(
                policy.config, point_statistics(), handle, name="run", incarnation=0, quarantined={}, servers=servers
            )
            for runner in runners
        ])  # fmt: skip
        before = ray.get(servers[0].statistics.remote())
        orders = [
            runner.deliver.options(num_returns=2).remote(Order(handle, 4)) for _ in range(30) for runner in runners
        ]
        reports = ray.get([report for _, report in orders])
        after = ray.get(servers[0].statistics.remote())
        assert (after["questions"] - before["questions"]) / (after["batches"] - before["batches"]) > 1.2
        assert all(report.decisions or report.finished for report in reports)
        names = [episode.episode_id for report in reports for episode in report.finished]
        assert len(names) == len(set(names)) > 30
        for runner in runners:
            ray.kill(runner)
