"""Simulators in processes of their own while a runner plays them: none waits for another, nor for the next order."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from actors.env_runner import SimulatorEnvRunner
from actors.orders import Order
from actors.termination import waiting
from actors.weights import WeightHandle
from avavla_ray.errors import InputError
from avavla_ray.policy.weights import flatten
from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.side_by_side import is_stuck, wait_for
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from tests.support.dying_starters import make_dying_starter
from tests.support.fragments import POINT, order, point_rollout
from tests.support.point_simulator import make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny
from tests.support.slow_simulators import make_slow, make_slow_starter


def isolated(factory):
    return functools.partial(IsolatedSimulator, factory)


def test_simulators_go_on_between_orders() -> None:
    rollout = point_rollout(stirred_policy(tiny()).eval(), isolated(make_point_simulator), simulators=4)
    try:
        for _ in range(5):
            _, report = rollout.deliver(order(2))
            assert len(report.pids) == 4
            ready, end = set[int](), time.monotonic() + 30
            while len(ready) < 4 and time.monotonic() < end:  # nobody has to ask them for what they are at
                ready = wait_for(rollout.simulators, None, 0.1)
            # Those of one buffer have just begun, those of the other had before.
            assert ready == {id(simulator) for simulator in rollout.simulators}
    finally:
        rollout.close()


def test_a_slow_start_holds_up_its_own_buffer_only() -> None:
    rollout = point_rollout(stirred_policy(tiny()).eval(), isolated(make_slow_starter), simulators=2, buffers=2)
    try:
        played = Counter[int]()
        while played.total() < 150:
            for fragment in rollout.deliver(order(4))[0]:
                played[int(fragment.task[0])] += len(fragment)
        assert played[1] > 4 * played[0] > 0
    finally:
        rollout.close()


@pytest.mark.parametrize("hold", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_simulator_that_hangs_is_found_while_another_buffer_keeps_the_runner_busy(hold: bool) -> None:
    make = functools.partial(IsolatedSimulator, make_slow, limits=Limits(silence_s=3.0))
    rollout = point_rollout(stirred_policy(tiny()).eval(), make, simulators=3, buffers=2)
    try:
        rollout.deliver(order(2))
        hung = rollout._slots[0]
        pid, began = hung.simulator.pid, time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        decisions = 0
        while hung.simulator.pid == pid and time.monotonic() < began + 30:
            if hold:
                rollout.deliver(replace(order(2), hold=True))
            decisions += rollout.deliver(order(2))[1].decisions
        assert hung.simulator.pid != pid, "within bounded time"
        assert decisions > 2, "the others go on without it, after a hold too"
    finally:
        rollout.close()


@pytest.mark.parametrize("buffers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_a_simulator_that_hangs_keeps_nobody_waiting_and_is_replaced(buffers: int, capfd) -> None:
    make = functools.partial(IsolatedSimulator, make_point_simulator, limits=Limits(silence_s=5.0))
    rollout = point_rollout(stirred_policy(tiny()).eval(), make, simulators=4, buffers=buffers)
    try:
        rollout.deliver(order(2))
        hung = rollout._slots[0]
        pid, finished, decisions, deliveries = hung.simulator.pid, list[str](), 0, 0
        os.kill(pid, signal.SIGSTOP)
        while hung.simulator.pid == pid:
            _, report = rollout.deliver(order(2))
            finished += [episode.episode_id for episode in report.finished]
            decisions, deliveries = decisions + report.decisions, deliveries + 1
        assert decisions > 20, "the others of its buffer go on without it"
        assert len(finished) > 3
        assert not any(name.startswith(f"{hung.name}-") for name in finished[2:])
        assert "hang" in capfd.readouterr().out
        begun = hung.begun
        while hung.begun < begun + 2:
            rollout.deliver(order(2))
    finally:
        rollout.close()


@pytest.mark.ray
def test_a_runner_that_is_told_to_leave_hands_in_what_it_has(ray_cluster: dict, tmp_path: Path) -> None:
    policy = stirred_policy(tiny()).eval()
    handle = WeightHandle(0, (ray.put(flatten(policy)),))
    notice = tmp_path / "leaving"
    config = AsyncPPOConfig().env_runners(num_envs_per_env_runner=3).debugging(seed=1)
    config = config.training(simulator=POINT, make_simulator=make_point_simulator, spot=f"file:{notice}", profile=True)
    runner = ray.remote(num_cpus=1)(SimulatorEnvRunner).remote(config=config, worker_index=1, num_workers=1)
    try:
        assert set(ray.get(runner.hello.remote())) == {"node", "host", "pid", "leaving"}
        ray.get(runner.start.remote(policy.config, point_statistics(), handle, name="r", incarnation=0, quarantined={}))
        fragments, report = ray.get(runner.deliver.remote(Order(handle, 8)))
        assert fragments
        assert report.leaving is None
        assert {"runner", "runner/policy", "simulator"} <= report.timings.keys()
        notice.touch()
        end = time.monotonic() + 60
        while report.leaving is None:
            assert time.monotonic() < end
            fragments, report = ray.get(runner.deliver.remote(Order(handle, 8)))
        assert report.leaving == f"{notice} has appeared"
        fragments, report = ray.get(runner.deliver.remote(Order(handle, 8)))
        assert not fragments
        assert report.leaving
        assert waiting(notice) == [str(ray.get(runner.hello.remote())["pid"])], "nobody has said that all is safe"
        ray.get(runner.handed_in.remote())
        assert waiting(notice) == []
    finally:
        ray.kill(runner)


@pytest.mark.parametrize(("said", "error", "message"), [
    ("die", SimulatorFailure, "status 9"), ("complain", InputError, "no such assets any more"),
])  # fmt: skip
def test_what_is_lost_while_it_starts_is_told_once_and_harms_nobody_who_looks(
    tmp_path: Path, said: str, error: type[Exception], message: str
) -> None:
    """A runner looks at all its simulators again and again while those of another buffer keep it busy."""
    order_file = tmp_path / "order"
    simulator = IsolatedSimulator(functools.partial(make_dying_starter, order_file), POINT)
    try:
        os.kill(simulator.pid, signal.SIGKILL)
        simulator.begin_reset(0)
        with pytest.raises(SimulatorFailure):
            simulator.finish_reset()
        order_file.write_text(said)
        simulator.begin_reset(0)
        end = time.monotonic() + 30
        while not wait_for([simulator], None, 0.1):
            assert time.monotonic() < end
        for _ in range(3):
            assert wait_for([simulator], None, 0.0) == {id(simulator)}
            assert not is_stuck(simulator)
        with pytest.raises(error, match=message):
            simulator.finish_reset()
        order_file.unlink()
        assert simulator.reset(0).instruction
    finally:
        simulator.close()
