"""Simulators that die while they are played: in LIBERO with faults of every kind, and under asynchronous PPO.

The full demonstration is benchmarks/isolation.py: 500 chunks with a fault at every 20th.
"""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from actors.fragment_queue import Lot
from actors.metrics import flat
from actors.report import Report
from actors.rollout import Rollout
from actors.watchdog import NoTaskLeft, Outcome
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.simulators.isolated.faults import FaultPlan, make_faulty
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from benchmarks.isolation import Settings, demonstrate, mismatches
from tests.support.failing_simulators import breaks_at
from tests.support.fragments import POINT, lockstep, point_rollout
from tests.support.point_simulator import make_point_simulator, point_statistics
from tests.support.policies import responsive_policy, stirred_policy, tiny
from tests.support.processes import wait_until_gone


def make_rollout(factory, simulators: int = 2) -> Rollout:
    return point_rollout(stirred_policy(tiny()).eval(), factory, simulators=simulators, seed=(3,), name="run")


def test_isolation_changes_nothing_of_what_is_learned_from() -> None:
    inside, isolated = (
        make_rollout(make_point_simulator),
        make_rollout(functools.partial(IsolatedSimulator, make_point_simulator)),
    )
    assert inside.provenance()["isolated"] is False
    assert isolated.provenance()["isolated"] is True
    for _ in range(2):
        fragments, report = lockstep(inside, 9)
        others, other = lockstep(isolated, 9)
        for one, same in zip(fragments, others, strict=True):
            for name in ("z", "u", "next_z", "reward", "duration", "terminated", "truncated", "task"):
                np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert report.finished == other.finished
    isolated.close()


@pytest.mark.parametrize("isolate", [True, False])
def test_a_task_that_kills_is_quarantined_and_the_other_goes_on(isolate: bool) -> None:
    factory = functools.partial(breaks_at, 1)
    rollout = make_rollout(functools.partial(IsolatedSimulator, factory) if isolate else factory)
    fragments, report = lockstep(rollout, 20)
    assert list(report.quarantined) == [1]
    assert "no ground to stand on" in report.quarantined[1]
    assert report.failures == {"physics": 3}
    assert report.aborted == 0
    assert {episode.task for episode in report.finished} == {0}
    assert sum(len(fragment) for fragment in fragments) == report.decisions == 2 * 20
    rollout.watchdog.adopt({0: "task 0 is quarantined elsewhere"})
    _, report = lockstep(rollout, 20)
    assert report.failure is not None
    with pytest.raises(NoTaskLeft, match="all 2 are quarantined; task 0 is quarantined elsewhere"):
        lockstep(rollout, 20)
    rollout.close()


def test_an_aborted_episode_keeps_its_whole_decisions_and_is_not_reported(tmp_path: Path) -> None:
    plan = FaultPlan(tmp_path, every=7, faults=("killed", "nan", "physics", "exit"))
    rollout = make_rollout(
        functools.partial(IsolatedSimulator, functools.partial(make_faulty, make_point_simulator, plan))
    )
    fragments, report = lockstep(rollout, 21)
    assert report.failures == {"crash": 3, "garbage": 2, "physics": 1}
    assert report.aborted == 6
    assert sum(len(fragment) for fragment in fragments) == report.decisions == 2 * 21 - 6
    ended = sorted((entry["seed"], entry["steps"]) for entry in plan.read("endings"))
    assert ended == sorted((episode.seed, episode.steps) for episode in report.finished)
    assert sum(outcome.kind is None for outcome in report.outcomes) == len(report.finished)
    assert all(np.isfinite(fragment.next_z).all() for fragment in fragments)
    rollout.close()


@pytest.mark.alone
@pytest.mark.libero
@pytest.mark.timeout(240)
def test_faults_in_libero_cost_their_episodes_and_leave_nothing_behind() -> None:
    faults = ("segmentation fault", "memory", "hang holding the interpreter", "constant image", "killed", "physics")
    numbers = demonstrate(Settings(chunks=42, every=7, simulators=2, faults=faults, step_s=3))
    assert numbers["faults_struck"] == dict.fromkeys(faults, 1)
    assert numbers["failures_reported"] == {"crash": 2, "memory": 1, "hang": 1, "garbage": 1, "physics": 1}
    assert numbers["episodes_aborted"] == 6
    assert numbers["decisions_delivered"] == numbers["chunks"] - 6
    assert numbers["episodes_finished"] == numbers["episodes_reported"] > 0
    assert numbers["episodes_lost"] == numbers["episodes_double"] == 0
    assert numbers["after"] == numbers["before"]
    assert mismatches(numbers) == []


def test_the_demonstration_says_what_went_wrong() -> None:
    traces = {"processes": 1, "file_descriptors": 9}
    good = {
        "failures_reported": {"crash": 1}, "failures_expected": {"crash": 1}, "episodes_lost": 0, "episodes_double": 0,
        "before": traces, "after": traces,
    }  # fmt: skip
    assert mismatches(good) == []
    for name, value, told in (
        ("failures_reported", {"hang": 1}, "failures reported {'hang': 1}, expected {'crash': 1}"),
        ("episodes_lost", 2, "2 episodes were lost"),
        ("episodes_double", 1, "1 episodes were reported twice"),
        ("after", {**traces, "processes": 2}, "processes 1 before, 2 after"),
    ):
        assert mismatches({**good, name: value}) == [told]


@pytest.mark.ray
def test_ppo_goes_on_beside_a_task_that_kills_until_none_is_left(ray_cluster: dict, tmp_path: Path, capfd) -> None:
    save_checkpoint(tmp_path / "policy", responsive_policy(), point_statistics(), stage="bc", provenance={})
    config = AsyncPPOConfig().env_runners(num_env_runners=2, num_envs_per_env_runner=2).debugging(seed=1)
    algorithm = config.training(
        checkpoint=str(tmp_path / "policy"), simulator=POINT, make_simulator=functools.partial(breaks_at, 1),
        update_decisions=64, minibatch_decisions=32,
    ).build_algo()  # fmt: skip
    try:
        for _ in range(10):  # until both runners have delivered
            point = flat(algorithm.train())
            if point["total/tasks_quarantined"]:
                break
        assert point["total/tasks_quarantined"] == 1
        assert point["total/simulator_failures"] == point["total/simulators_restarted_physics"] >= 3
        assert point["total/simulators_restarted_crash"] == point["total/episodes_aborted"] == 0
        assert {episode.task for episode in algorithm.episodes} == {0}
        assert algorithm.simulator_provenance["isolated"] is True

        # What one runner alone has died of and left out is not left out by all.
        sick = Report(0, outcomes=[Outcome(0, "crash", "its machine is sick")] * 5, quarantined={0: "sick"})
        algorithm._watch(Lot(None, sick, runner=1, node=ray.get_runtime_context().get_node_id()))
        assert list(algorithm.watchdog.quarantined) == [1]

        # The death of a runner is the death of its simulators' processes.
        runner = algorithm.env_runner_group._worker_manager.actors()[1]
        pids = ray.get(runner.apply.remote(lambda made: [os.getpid(), *(s.pid for s in made.rollout.simulators)]))
        os.kill(pids[0], signal.SIGKILL)
        wait_until_gone(set(pids))
        assert flat(algorithm.train())["total/tasks_quarantined"] == 1

        algorithm.watchdog.adopt({0: "task 0 is quarantined by hand"})
        with pytest.raises(NoTaskLeft, match="no task is left to play"):
            for _ in range(20):
                algorithm.train()
    finally:
        algorithm.stop()
    assert capfd.readouterr().out.count("no runner plays it any more") == 1
