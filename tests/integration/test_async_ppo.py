"""Asynchronous PPO on real Ray actors and DeepSpeed engines, on a simulator that steps in microseconds.

One algorithm serves the tests in order: it learns, loses runners and learners, is saved and restored.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.known_runner import Stage
from actors.ledger import read_ledger
from actors.metrics import flat
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.weights import WeightBuffer, flatten
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.lost_objects import lost_reference
from tests.support.point_simulator import make_point_simulator, point_statistics, refuse_point_simulator
from tests.support.policies import responsive_policy
from tests.support.processes import wait_until_gone

pytestmark = pytest.mark.ray


def point_config(checkpoint: Path, **training) -> AsyncPPOConfig:
    config = AsyncPPOConfig().env_runners(num_env_runners=2, num_envs_per_env_runner=4).debugging(seed=1)
    settings = {
        "checkpoint": str(checkpoint), "simulator": SimulatorConfig(suite="point", tasks=(0,), image_size=32),
        "make_simulator": make_point_simulator, "update_decisions": 256, "policy_lr": 3e-3, "critic_lr": 3e-3,
        "target_kl": 0.1, "lambda_delta": 0.0, "lambda_entropy": 0.0, **training,
    }  # fmt: skip
    return config.training(**settings)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "checkpoint"
    save_checkpoint(folder, responsive_policy(), point_statistics(), stage="bc", provenance={})
    return folder


@pytest.fixture(scope="module")
def algorithm(ray_cluster: dict, checkpoint: Path) -> Iterator[AsyncPPO]:
    algorithm = point_config(checkpoint).build_algo()
    yield algorithm
    algorithm.stop()


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Ids of all episodes that the algorithm has reported."""
    return set()


def train(algorithm: AsyncPPO, seen: set[str]) -> dict[str, float]:
    """One iteration; no episode may come twice."""
    point = flat(algorithm.train())
    names = [episode.episode_id for episode in algorithm.episodes]
    assert len(names) == len(set(names))
    assert not seen & set(names)
    seen.update(names)
    return point


def train_until(
    algorithm: AsyncPPO, seen: set[str], reached: Callable[[dict[str, float]], bool], limit_s: float
) -> dict:
    end = time.monotonic() + limit_s
    while not reached(point := train(algorithm, seen)):
        assert time.monotonic() < end, f"not reached within {limit_s} s: {point}"
    return point


def weights_of(algorithm: AsyncPPO) -> np.ndarray:
    buffer: WeightBuffer = ray.get(algorithm.learner_group.weights())
    return np.array(buffer.array)


def runner_versions(algorithm: AsyncPPO) -> list[int]:
    return ray.get(
        [actor.weights_version.remote() for actor in algorithm.env_runner_group._worker_manager.actors().values()]
    )


@pytest.mark.long
def test_learners_that_die_before_the_first_update_come_back_to_the_checkpoint(algorithm, checkpoint, seen) -> None:
    group, version = algorithm.learner_group, algorithm.learner_group.version
    ray.kill(group._ranks[0])
    point = train(algorithm, seen)
    assert group.restarts == point["total/learner_restarts"] == 1
    # One version for the restart, one for the update of this iteration.
    assert group.version == version + 2
    assert point["total/decisions_dropped"] >= 256, "the update that was lost has taught nothing"
    assert point["learner/first_kl"] < 1e-6
    assert point["learner/minibatches"] > 0
    initial = flatten(load_checkpoint(checkpoint).policy).array
    # At these rates a handful of Adam steps moves no weight by more than the sum of the rates.
    assert 0 < np.abs(weights_of(algorithm) - initial).max() < 0.003 * 16 * 2


@pytest.mark.long  # test_ppo_learns asks for more
def test_success_rises(algorithm, seen) -> None:
    first = train(algorithm, seen)
    assert first["rollout/success_rate"] < 0.5
    best = train_until(algorithm, seen, lambda point: point["rollout/success_rate"] > 0.7, limit_s=120)
    assert best["total/episodes"] == len(seen)
    assert best["learner/lag"] <= algorithm.config.max_lag
    assert best["total/fragments_dropped"] == first["total/fragments_dropped"]


def test_a_killed_runner_comes_back_with_current_weights_while_training_goes_on(algorithm, seen) -> None:
    train(algorithm, seen)  # one that dies before it has played is started again by Ray, and nobody needs to know
    version = algorithm.learner_group.version
    actors = algorithm.env_runner_group._worker_manager.actors()
    pid = ray.get(actors[1].apply.remote(lambda runner: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    point = train_until(algorithm, seen, lambda point: point["total/runner_restarts"] == 1, limit_s=90)
    assert point["learner/version"] > version
    train_until(algorithm, seen, lambda _: any("-1.1-" in name for name in seen), limit_s=90)
    assert min(runner_versions(algorithm)) > version
    assert ray.get(actors[1].apply.remote(lambda runner: os.getpid())) != pid


@pytest.mark.long
def test_a_runner_that_hangs_is_killed_and_comes_back(algorithm, seen) -> None:
    actors = algorithm.env_runner_group._worker_manager.actors()
    pid = ray.get(actors[2].apply.remote(lambda runner: os.getpid()))
    restarts = train(algorithm, seen)["total/runner_restarts"]
    algorithm.pool.timeout_s = 2.0
    os.kill(pid, signal.SIGSTOP)
    try:
        train_until(algorithm, seen, lambda _: algorithm.pool.count(Stage.COMING) == 1, limit_s=90)
    finally:
        algorithm.pool.timeout_s = 600.0
    point = train_until(algorithm, seen, lambda _: any("-2.1-" in name for name in seen), limit_s=90)
    assert point["total/runner_restarts"] == restarts + 1
    assert ray.get(actors[2].apply.remote(lambda runner: os.getpid())) != pid


def test_killed_learners_restart_together_and_versions_go_on(algorithm, seen) -> None:
    group = algorithm.learner_group
    before, weights, restarts = group.version, weights_of(algorithm), group.restarts
    pid = ray.get(group._ranks[0].__ray_call__.remote(lambda _: os.getpid()))
    ray.kill(group._ranks[0])  # returns before the rank is dead
    wait_until_gone({pid})
    train(algorithm, seen)
    assert group.restarts == restarts + 1
    assert group.version >= before + 2
    # The snapshot was of the last update, so that nothing of it was lost.
    assert np.abs(weights_of(algorithm) - weights).max() < 0.003 * 16 * 2
    train(algorithm, seen)
    assert min(runner_versions(algorithm)) > before


def test_an_update_that_is_not_finite_is_refused_and_changes_nothing(algorithm, seen) -> None:
    group = algorithm.learner_group
    train_until(algorithm, seen, lambda _: len(algorithm.queue) > 0, limit_s=60)
    algorithm.settle()
    (fragment, *others) = ray.get(algorithm.queue.lots[-1].fragments)
    before, version = weights_of(algorithm), group.version
    for field in ("reward", "log_prob", "u"):
        poisoned = getattr(fragment, field).copy()
        poisoned[-1] = np.nan
        lot = [replace(fragment, **{field: poisoned}), *others]
        group.update_async([(ray.put(lot), sum(map(len, lot)))])
        ray.wait(group.pending, num_returns=1, timeout=60)
        outcome = group.poll()
        assert "is not finite" in outcome.refusal or "is nan" in outcome.refusal, field
        assert outcome.weights is None
        assert group.version == version
        np.testing.assert_array_equal(weights_of(algorithm), before)
    assert train(algorithm, seen)["learner/kl"] >= 0


def test_old_fragments_are_dropped_and_counted(algorithm, seen) -> None:
    point = train_until(algorithm, seen, lambda _: len(algorithm.queue) > 0, limit_s=60)
    waiting = len(algorithm.queue)
    algorithm.learner_group.version += algorithm.config.max_lag + 1
    algorithm._publish(algorithm.learner_group.weights())
    after = train(algorithm, seen)
    assert after["total/fragments_dropped"] >= point["total/fragments_dropped"] + waiting
    assert after["learner/lag"] <= algorithm.config.max_lag


def test_weights_that_were_lost_are_published_again(algorithm, seen) -> None:
    group = algorithm.learner_group
    group.version += 1
    lost = group.version
    algorithm._weights.publish(lost, lost_reference(ray.get(group.weights())))
    train_until(algorithm, seen, lambda _: min(runner_versions(algorithm)) > lost, limit_s=60)


def test_a_checkpoint_brings_everything_back(algorithm, seen, tmp_path: Path) -> None:
    point = train(algorithm, seen)
    algorithm.settle()
    saved, version, iteration = weights_of(algorithm), algorithm.learner_group.version, algorithm.iteration
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    train(algorithm, seen)
    assert not np.array_equal(weights_of(algorithm), saved)
    later = algorithm.learner_group.version

    algorithm.restore_from_path(path)
    np.testing.assert_array_equal(weights_of(algorithm), saved)
    assert algorithm.iteration == iteration
    assert algorithm.learner_group.version > later > version
    after = train(algorithm, seen)
    assert after["total/env_steps"] > point["total/env_steps"]
    assert after["learner/lag"] <= 1

    algorithm.stop()
    again = AsyncPPO.from_checkpoint(path)
    try:
        np.testing.assert_array_equal(weights_of(again), saved)
        assert again.iteration == iteration
        assert again.learner_group.version > version
        resumed = train(again, seen)  # with new episode ids
        assert resumed["total/env_steps"] > point["total/env_steps"]
        assert resumed["rollout/success_rate"] > 0.4
    finally:
        again.stop()


def test_without_lag_the_same_seed_gives_the_same_weights(ray_cluster: dict, checkpoint: Path, tmp_path: Path) -> None:
    """Whichever runner is faster: bit by bit."""

    def learned(ledger: Path) -> tuple[list[np.ndarray], set[tuple]]:
        config = point_config(
            checkpoint, max_lag=0, update_decisions=200, epochs=1, isolate=False, ledger=str(ledger)
        )  # fmt: skip
        algorithm, weights = config.build_algo(), []
        try:
            for _ in range(2):
                point = flat(algorithm.train())
                # Two runners with 4 simulators and 16 decisions each make 128 in a round.
                assert point["learner/decisions"] == 256
                assert point["lag/0"] == 1.0
                weights.append(weights_of(algorithm))
            assert not len(algorithm.queue)
            assert not algorithm.pool.busy
        finally:
            algorithm.stop()
        return weights, {(row["runner"], row["seed"], row["steps"], row["success"]) for row in read_ledger(ledger)}

    first, second = learned(tmp_path / "first.jsonl"), learned(tmp_path / "second.jsonl")
    for one, other in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0][0], first[0][1])
    assert first[1] == second[1]


@pytest.mark.long
def test_a_policy_server_that_dies_costs_no_episode(ray_cluster: dict, checkpoint: Path, tmp_path: Path) -> None:
    ledger, seen = tmp_path / "episodes.jsonl", set[str]()
    algorithm = point_config(
        checkpoint, policy_placement="server", curriculum=True, update_decisions=128, epochs=1, ledger=str(ledger)
    ).build_algo()  # fmt: skip
    try:
        train_until(algorithm, seen, lambda _: {"1", "2"} == {name.split("-")[2][0] for name in seen}, limit_s=120)
        (server,) = algorithm.servers.handles
        for _ in range(3):  # until the driver has looked at it
            train(algorithm, seen)
        statistics = ray.get(server.statistics.remote())
        assert statistics["decisions"] > 0
        assert statistics["version"] > 0
        os.kill(statistics["pid"], signal.SIGKILL)
        point = train_until(algorithm, seen, lambda point: point["total/server_restarts"] == 1, limit_s=120)
        assert point["total/runner_restarts"] == 0
        rows = read_ledger(ledger)
        assert sorted(row["episode_id"] for row in rows) == sorted(seen)
        for slot in {name.rpartition("-")[0] for name in seen}:
            numbers = sorted(int(name.rpartition("-")[2]) for name in seen if name.rpartition("-")[0] == slot)
            assert numbers == list(range(len(numbers)))
        # 20 outcomes of one task are known by now.
        assert algorithm.curriculum.weights().keys() == {0}
        restored = algorithm.curriculum.state()
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
        algorithm.curriculum.restore({"outcomes": {}})
        algorithm.restore_from_path(path)
        assert algorithm.curriculum.state() == restored
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"policy_placement": "cloud"}, "unknown policy placement 'cloud'"),
        ({"min_env_runners": 3}, "min_env_runners is 3, and there are 2: training would never begin"),
        ({"queue_decisions": 255}, "queue_decisions is 255, and an update waits for 256"),
        ({"queue_decisions": 1000, "delay_updates": 3}, "queue_decisions is 1000, and an update waits for 1024"),
        ({"delay_updates": 5}, "delay_updates is 5, and what is more than 4 updates old is dropped"),
        ({"delay_updates": -1}, "delay_updates is -1"),
        ({"max_lag": 0, "delay_updates": 1}, "delay_updates is 1, and what is more than 0 updates old is dropped"),
        ({"buffers": 0}, "buffers is 0: give at least 1"),
        ({"idle_release_s": 0.0}, "idle_release_s is 0.0: give more than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(checkpoint: Path, setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        point_config(checkpoint, **setting).validate()


def test_experience_is_as_late_as_asked_and_the_clock_starts_when_runners_play(
    ray_cluster: dict, checkpoint: Path
) -> None:
    late = {"max_lag": 6, "delay_updates": 3, "queue_decisions": 4 * 64}
    algorithm = point_config(checkpoint, update_decisions=64, epochs=1, isolate=False, **late).build_algo()
    try:
        algorithm.start_runners()
        assert algorithm.pool.count(Stage.PLAYING) >= 1
        assert not algorithm.episodes
        points = [flat(algorithm.train()) for _ in range(12)]
        lags = [point["learner/lag"] for point in points]
        assert lags[0] == 0, "there was one version only"
        assert all(3 <= lag <= 5 for lag in lags[6:]), lags
        assert points[-1]["total/decisions_dropped"] == 0
    finally:
        algorithm.stop()


def test_bad_input_of_a_runner_arrives_as_it_was_raised(ray_cluster: dict, checkpoint: Path) -> None:
    algorithm = point_config(checkpoint, make_simulator=refuse_point_simulator).build_algo()
    try:
        with pytest.raises(InputError, match="the plane is not here: install it"):
            algorithm.train()
    finally:
        algorithm.stop()


def test_a_missing_checkpoint_is_named(ray_cluster: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no checkpoint at"):
        point_config(tmp_path / "nothing").build_learner_group()


def test_training_without_a_learner_process_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="num_learners is 0: give at least 1"):
        point_config(checkpoint).learners(num_learners=0).validate()
