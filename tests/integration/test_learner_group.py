"""Two learner ranks on real DeepSpeed engines: one unit, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from actors.learner_group import DeepSpeedLearnerGroup, Outcome
from avavla_ray.errors import InputError
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from tests.support.fragments import rollout_fragments
from tests.support.lost_objects import lost_reference
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy
from tests.support.processes import wait_until_gone

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def policy() -> AvaVlaPolicy:
    return responsive_policy()


@pytest.fixture(scope="module")
def group(ray_cluster: dict, policy: AvaVlaPolicy, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("policy") / "checkpoint"
    known = {name: replace(point_statistics(), name=name) for name in ("point", "other")}
    save_checkpoint(folder, policy, known, stage="bc", provenance={})
    for given in (str(folder), folder.as_uri()):  # an address is what the trials of a sweep get
        with pytest.raises(InputError, match="name one of other, point"):
            AsyncPPOConfig().training(checkpoint=given).build_learner_group()
    settings = {
        "checkpoint": str(folder),
        "unnorm_key": "other",
        "policy_lr": 1e-3,
        "minibatch_decisions": 16,
        "epochs": 2,
        "target_kl": 1.0,
    }
    config = AsyncPPOConfig().learners(num_learners=2).training(**settings)
    group = config.build_learner_group()
    assert group.statistics.name == "other"
    yield group
    group.shutdown()


@pytest.fixture(scope="module")
def lots(ray_cluster: dict, policy: AvaVlaPolicy) -> list[tuple[ray.ObjectRef, int]]:
    """Uneven shares: 84 decisions in one lot, 40 and 27 in the others."""
    made: list[list[Fragment]] = [
        rollout_fragments(policy, decisions, simulators, seed=decisions)
        for decisions, simulators in ((42, 2), (40, 1), (27, 1))
    ]
    return [(ray.put(fragments), sum(map(len, fragments))) for fragments in made]


def finished(group: DeepSpeedLearnerGroup) -> Outcome:
    while (outcome := group.poll()) is None:
        assert group.busy
        if group.pending:
            ray.wait(group.pending, num_returns=len(group), timeout=1)
        else:
            time.sleep(0.05)  # lost ranks are being replaced
    assert not group.busy
    return outcome


def weights(group: DeepSpeedLearnerGroup) -> np.ndarray:
    return np.array(ray.get(group.weights()).array)


def test_uneven_fragments_make_equal_minibatches(group, lots) -> None:
    before, version = weights(group), group.version
    group.update_async(lots)
    outcome = finished(group)
    assert outcome.refusal is None
    assert not outcome.restarted
    assert outcome.metrics["decisions"] == 84 + 40 + 27
    # 151 decisions are nine minibatches of 16 or a little more, of which either rank has its share.
    assert outcome.metrics["minibatches"] == 2 * 9
    assert outcome.metrics["first_kl"] < 1e-6
    assert outcome.version == group.version == version + 1
    after = weights(group)
    np.testing.assert_array_equal(ray.get(outcome.weights).array, after)
    assert 0 < np.abs(after - before).max() < 1e-3 * 16 * 2


def test_a_rank_that_dies_in_an_update_takes_the_others_along_and_all_come_back(group, lots) -> None:
    before, version = weights(group), group.version
    group.update_async(lots)
    ray.kill(group._ranks[1])
    outcome = finished(group)
    assert outcome.restarted
    assert outcome.version == version + 1
    assert group.restarts == 1
    np.testing.assert_array_equal(ray.get(outcome.weights).array, before)
    group.update_async(lots)
    assert finished(group).metrics["minibatches"] == 2 * 9
    assert group.updates == 2 < group.version, "schedules go by updates, and a restart is none"


def test_a_rank_that_hangs_is_noticed_in_time_and_all_come_back(group, lots, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version, restarts = weights(group), group.version, group.restarts
    pid = ray.get(group._ranks[1].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    group.update_async(lots)
    assert group.poll() is None
    monkeypatch.setattr(group, "_begun", begun - group._config.learner_timeout_s)  # so long ago
    assert group.poll() is None
    assert group.busy, "nobody waits for the new ranks"
    assert not group.pending
    with pytest.raises(RuntimeError, match="already running"):
        group.update_async(lots)
    outcome = finished(group)
    assert outcome.restarted
    assert (outcome.version, group.restarts) == (version + 1, restarts + 1)
    np.testing.assert_array_equal(ray.get(outcome.weights).array, before)


def test_a_rank_that_dies_while_all_start_for_the_first_time(group, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, real = [], DeepSpeedLearnerGroup._start

    def start(self: DeepSpeedLearnerGroup) -> None:
        begun.append(self)
        if len(begun) == 1:
            raise ray.exceptions.ActorDiedError
        real(self)

    monkeypatch.setattr(DeepSpeedLearnerGroup, "_start", start)
    other = group._config.build_learner_group()
    try:
        assert (len(begun), other.restarts) == (2, 1)
        assert weights(other).size == weights(group).size
    finally:
        other.shutdown()


def test_weights_are_there_even_when_a_rank_has_just_died(group) -> None:
    before, version = weights(group), group.version
    pid = ray.get(group._ranks[0].__ray_call__.remote(lambda _: os.getpid()))
    ray.kill(group._ranks[0])  # returns before the rank is dead
    wait_until_gone({pid})
    np.testing.assert_array_equal(weights(group), before)
    assert group.version == version + 1


def test_saving_waits_for_no_update_while_the_last_snapshot_has_the_newest_weights(group, lots, tmp_path: Path) -> None:
    group.version += 1  # as after weights that were lost with a machine: other versions, the same weights
    before = weights(group)
    pid = ray.get(group._ranks[1].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    try:
        group.update_async(lots)
        group.save_to_path(str(tmp_path))
        assert group.pending
        assert group.poll() is None
    finally:
        os.kill(pid, signal.SIGCONT)
    assert finished(group).metrics is not None
    assert not np.array_equal(weights(group), before)
    group.restore_from_path(str(tmp_path))
    np.testing.assert_array_equal(weights(group), before)


def test_fragments_that_were_lost_make_no_update(group, lots) -> None:
    lost = lost_reference(ray.get(lots[0][0]))
    before, version = weights(group), group.version
    group.update_async([(lost, 84), *lots[1:]])
    outcome = finished(group)
    assert "lost" in outcome.refusal
    assert group.version == version
    np.testing.assert_array_equal(weights(group), before)


def test_an_update_needs_something_for_every_rank(group, lots) -> None:
    with pytest.raises(ValueError, match="1 lots of fragments for 2 ranks"):
        group.update_async(lots[:1])


def test_a_checkpoint_of_another_number_of_ranks_is_refused(group, tmp_path: Path) -> None:
    state = group.get_state()
    with pytest.raises(InputError, match="was written by 1 learner rank"):
        group.set_state({**state, "shape": (1, 2)})


def test_ranks_that_die_in_every_update_end_the_run(group, lots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test here: nothing goes on with the group."""
    monkeypatch.setattr("actors.learner_group.RESTARTS_IN_A_ROW", 1)
    with pytest.raises(RuntimeError, match="lost 2 times in a row, at last: 1 lost"):
        for _ in range(2):
            group.update_async(lots)
            ray.kill(group._ranks[1])
            finished(group)
