"""A runner's process that hangs while it starts, of which Ray says the same as of one that waits for room."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.runner_group import RunnerGroup

pytestmark = pytest.mark.ray


class Seat(RunnerGroup):
    """One, without RLlib's part."""

    def __init__(self, actor: Any, timeout_s: float) -> None:
        self._only, self._timeout_s, self._without = actor, timeout_s, {}

    def actor(self, seat: int) -> Any:
        return self._only


def test_a_process_that_hangs_while_it_starts_is_ended(ray_cluster: dict, tmp_path: Path) -> None:
    noted = tmp_path / "pid"

    class Hanging:
        """Hangs when it is started for the first time."""

        def __init__(self) -> None:
            if not noted.exists():
                noted.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)

        def pid(self) -> int:
            return os.getpid()

    actor = ray.remote(num_cpus=0.1, max_restarts=-1)(Hanging).remote()
    seat, end = Seat(actor, 600.0), time.monotonic() + 60
    calls = [actor.pid.remote()]  # Ray tells of an actor's state whoever calls it
    while not noted.exists() or not noted.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    first = int(noted.read_text())
    assert not seat.stands(1)
    seat._timeout_s = 1.0
    time.sleep(1.5)
    assert not seat.stands(1)
    seat._timeout_s = 600.0
    while not seat.stands(1):
        assert time.monotonic() < end
        calls.append(actor.pid.remote())
        time.sleep(0.1)
    assert ray.get(actor.pid.remote()) != first
    ray.kill(actor)
