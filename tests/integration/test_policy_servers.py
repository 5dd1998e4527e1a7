"""Policy servers that hang or can't be made, which no runner has heard from: the driver sees to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from actors.async_ppo_config import AsyncPPOConfig
from actors.policy_servers import PolicyServers
from tests.support.policies import tiny

pytestmark = pytest.mark.ray


@pytest.fixture
def started(ray_cluster: dict) -> Iterator[Callable[..., PolicyServers]]:
    made: list[PolicyServers] = []

    def start(**settings: Any) -> PolicyServers:
        config = AsyncPPOConfig().training(policy_placement="server", num_cpus_per_server=0.5, **settings)
        made.append(PolicyServers(config, tiny()))
        return made[-1]

    yield start
    for servers in made:
        servers.stop()


def watched(servers: PolicyServers, reached: Callable[[], Any], limit_s: float = 60.0) -> int:
    """Restarts that are told until then."""
    end, back = time.monotonic() + limit_s, 0
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        back += servers.restarts()
        time.sleep(0.1)
    return back


@pytest.mark.long
def test_a_server_that_hangs_before_a_runner_has_heard_from_it_is_ended(started, capfd) -> None:
    servers = started()
    (seen,) = servers._seen
    watched(servers, lambda: seen.pid)
    first = seen.pid
    os.kill(first, signal.SIGSTOP)
    servers._start_s = 4.0
    watched(servers, lambda: "it is started again" in capfd.readouterr().out)
    servers._start_s = 600.0
    assert watched(servers, lambda: seen.pid != first) == 1
    assert not seen.up, "it has decided nothing yet"
    seen.up, servers._timeout_s, second = True, 4.0, seen.pid
    os.kill(second, signal.SIGSTOP)
    assert watched(servers, lambda: seen.pid != second) == 1


def test_a_server_is_not_ended_because_the_driver_did_not_look(started) -> None:
    servers = started(server_timeout_s=3.0)
    (seen,) = servers._seen
    watched(servers, lambda: seen.pid)
    first, seen.up = seen.pid, True
    time.sleep(5)
    end = time.monotonic() + 3
    assert watched(servers, lambda: time.monotonic() > end) == 0
    assert seen.pid == first


def test_a_server_that_can_not_be_made_ends_the_run_with_its_own_words(started) -> None:
    servers = started(rollout_precision="float3")
    with pytest.raises(ActorDiedError, match="float3"):
        watched(servers, lambda: False)


def test_a_dead_server_s_room_is_nobody_else_s(started) -> None:
    servers = started()
    (seen,) = servers._seen
    watched(servers, lambda: seen.pid)
    first = seen.pid

    class Waiting:
        """Takes room."""

    taking = [ray.remote(num_cpus=0.5)(Waiting).remote() for _ in range(16)]  # more than there is room for
    time.sleep(3)
    os.kill(first, signal.SIGKILL)
    try:
        assert watched(servers, lambda: seen.pid != first) == 1
    finally:
        for waiting in taking:
            ray.kill(waiting)
