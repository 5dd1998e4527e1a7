"""Rollouts: fragments say exactly what happened, episodes are counted once, a broken simulator costs one episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actors.watchdog import NoTaskLeft, TaskDealer
from avavla_ray.learning.fragment import Fragment
from avavla_ray.simulators.base import SimulatorFailure
from tests.support.fragments import lockstep, point_rollout
from tests.support.point_simulator import PointSimulator, make_breaking_point_simulator, make_point_simulator
from tests.support.policies import stirred_policy, tiny


def make_rollout(factory=make_point_simulator, *, simulators: int = 3, seed: tuple[int, ...] = (0, 1, 0), **options):
    return point_rollout(stirred_policy(tiny()).eval(), factory, simulators=simulators, seed=seed, **options)


def test_fragments_have_one_row_a_decision_in_the_agreed_types() -> None:
    rollout = make_rollout(version=3)
    fragments, report = lockstep(rollout, 7, version=3)
    assert [len(fragment) for fragment in fragments] == [7, 7, 7]
    assert report.decisions == 21
    assert report.env_steps == sum(int(fragment.duration.sum()) for fragment in fragments)
    for fragment in fragments:
        assert fragment.z.shape == (7, 6, 16)
        assert fragment.next_z.shape == (7, 16)
        assert fragment.z.dtype == fragment.reward.dtype == np.float32
        assert fragment.steps.dtype == fragment.duration.dtype == fragment.version.dtype == np.int64
        assert fragment.terminated.dtype == bool
        assert (fragment.version == 3).all()


def test_what_was_stored_replays_to_the_same_log_probabilities() -> None:
    rollout = make_rollout()
    (fragment, *_), _ = lockstep(rollout, 5)
    policy = rollout.placement.policy
    for t in range(5):
        for k in range(fragment.steps[t]):
            log_prob, entropy = policy.log_prob_entropy(
                *(torch.tensor(part)[None] for part in (fragment.z[t, k], fragment.u[t, k], fragment.encoding[t]))
            )
            assert log_prob.item() == pytest.approx(float(fragment.log_prob[t, k]), abs=1e-4)
            assert entropy.item() == pytest.approx(float(fragment.entropy[t, k]), abs=1e-5)
            around = policy.loop.transition.surroundings(
                torch.tensor(fragment.encoding[t])[None], torch.tensor(fragment.tokens[t])[None]
            )
            moved = policy.loop.transition(
                torch.tensor(fragment.z[t, k])[None], torch.tensor(fragment.u[t, k])[None], around
            )
            torch.testing.assert_close(moved[0], torch.tensor(fragment.z[t, k + 1]), atol=1e-5, rtol=1e-4)


def test_the_next_latent_is_the_next_decisions_start_within_an_episode() -> None:
    fragments, _ = lockstep(make_rollout(), 12)
    for fragment in fragments:
        ended = fragment.terminated | fragment.truncated
        assert ended.any()
        for t in range(11):
            if not ended[t]:
                np.testing.assert_array_equal(fragment.next_z[t], fragment.z[t + 1, 0])
            else:
                assert np.abs(fragment.next_z[t] - fragment.z[t + 1, 0]).max() > 1e-4


def test_a_cut_is_bootstrapped_from_what_the_next_fragment_starts_with() -> None:
    rollout = make_rollout()
    first, _ = lockstep(rollout, 2)
    second, _ = lockstep(rollout, 2)
    for before, after in zip(first, second, strict=True):
        assert not before.terminated[-1]
        assert not before.truncated[-1]
        np.testing.assert_allclose(before.next_z[-1], after.z[0, 0], atol=1e-5)
        assert before.episode_ids[before.episode[-1]] == after.episode_ids[after.episode[0]]


def test_success_has_nothing_to_follow_and_a_time_limit_has() -> None:
    fragments, _ = lockstep(make_rollout(simulators=8), 24)
    succeeded = np.concatenate([fragment.terminated for fragment in fragments])
    limited = np.concatenate([fragment.truncated for fragment in fragments])
    latents = np.concatenate([fragment.next_z for fragment in fragments])
    rewards = np.concatenate([fragment.reward for fragment in fragments])
    assert succeeded.any()
    assert limited.any()
    assert not (succeeded & limited).any()
    assert (latents[succeeded] == 0).all()
    assert (np.abs(latents[limited]).max(axis=1) > 0).all()
    np.testing.assert_array_equal(rewards, succeeded.astype(np.float32))


def test_every_episode_is_reported_once_with_its_own_numbers() -> None:
    rollout = make_rollout()
    finished, reported, steps_of, numbers_of = [], [], {}, {}
    for _ in range(4):
        fragments, report = lockstep(rollout, 9)
        reported += report.finished
        assert len(report.returns) == len(report.finished)
        for fragment in fragments:
            finished += fragment.finished
            for index, name in enumerate(fragment.episode_ids):
                rows = fragment.episode == index
                steps_of[name] = steps_of.get(name, 0) + int(fragment.duration[rows].sum())
                numbers_of[name] = numbers_of.get(name, []) + fragment.decision[rows].tolist()
    names = [episode.episode_id for episode in reported]
    assert len(names) == len(set(names)) > 10
    assert sorted(names) == sorted(episode.episode_id for episode in finished)
    for episode in reported:
        assert episode.steps == steps_of[episode.episode_id]
        assert numbers_of[episode.episode_id] == list(range(episode.decisions))
        assert episode.steps <= 24
        assert 0 < episode.latent_steps <= 5
        assert episode.initial_state is None


def test_the_seed_decides_everything_and_an_incarnation_changes_it() -> None:
    def play(seed: tuple[int, ...]) -> Fragment:
        return lockstep(make_rollout(seed=seed), 6)[0][0]

    one, same, restarted = play((0, 1, 0)), play((0, 1, 0)), play((0, 1, 1))
    np.testing.assert_array_equal(one.u, same.u)
    np.testing.assert_array_equal(one.z, same.z)
    assert np.abs(one.u - restarted.u).max() > 0.1


def test_a_broken_simulator_costs_only_its_episode() -> None:
    rollout = make_rollout(make_breaking_point_simulator, simulators=2, name="run")
    fragments, report = lockstep(rollout, 11)
    assert report.failures == {"physics": 4}
    assert report.aborted == 4
    assert sum(len(fragment) for fragment in fragments) == report.decisions == 2 * 11 - 4
    begun = {f"run-{slot}-{index}" for slot in range(2) for index in range(10)}
    lost = begun - {episode.episode_id for episode in report.finished}
    for fragment in fragments:
        # The chunk that broke leaves no row, and the one before it is bootstrapped like any cut.
        assert not fragment.terminated[-1] or fragment.reward[-1] == 1
        assert np.isfinite(fragment.next_z).all()
        assert set(fragment.episode) == set(range(len(fragment.episode_ids)))
    assert lost & {name for fragment in fragments for name in fragment.episode_ids}
    names = [episode.episode_id for episode in report.finished]
    assert len(names) == len(set(names))


class UnresettablePoint(PointSimulator):
    def reset(self, task, *, initial_state=None, seed=0):
        raise SimulatorFailure("no plane to stand on")


def test_a_simulator_that_never_starts_is_given_up() -> None:
    with pytest.raises(SimulatorFailure, match="no plane"):
        make_rollout(UnresettablePoint)


class WearingPoint(PointSimulator):
    """Every simulator of it together can be reset so many times."""

    resets = 0

    def reset(self, task, *, initial_state=None, seed=0):
        if WearingPoint.resets == 0:
            raise SimulatorFailure("the plane is worn out")
        WearingPoint.resets -= 1
        return super().reset(task, initial_state=initial_state, seed=seed)


def test_what_was_played_before_no_episode_can_begin_is_delivered_first() -> None:
    WearingPoint.resets = 6
    rollout = make_rollout(WearingPoint, simulators=2)
    fragments, report = lockstep(rollout, 100)
    assert len(report.finished) >= 5
    assert sum(len(fragment) for fragment in fragments) == report.decisions > 0
    assert sorted(e.episode_id for fragment in fragments for e in fragment.finished) == sorted(
        episode.episode_id for episode in report.finished
    )
    assert all(np.isfinite(fragment.next_z).all() for fragment in fragments)
    assert set(report.quarantined) == {0, 1}
    assert sum(outcome.kind is None for outcome in report.outcomes) == len(report.finished)
    assert report.failures == {"physics": 6}
    assert report.failure is not None
    assert "no task is left to play" in report.failure
    for _ in range(2):
        with pytest.raises(NoTaskLeft, match="worn out"):
            lockstep(rollout, 1)
    rollout.close()


@pytest.mark.parametrize(("tasks", "slots"), [(10, 4), (3, 2), (4, 8), (1, 3), (5, 5)])
def test_tasks_are_dealt_evenly_over_all_slots(tasks: int, slots: int) -> None:
    dealers = [TaskDealer(range(tasks), slot, slots) for slot in range(slots)]
    dealt = [dealer.deal(range(tasks)) for _ in range(tasks) for dealer in dealers]
    assert [dealt.count(task) for task in range(tasks)] == [slots] * tasks


def test_the_turns_of_a_quarantined_task_go_to_the_others_evenly() -> None:
    dealers = [TaskDealer(range(4), slot, 4) for slot in range(4)]
    dealt = [[dealer.deal((0, 2, 3)) for dealer in dealers] for _ in range(6)]
    # The others' slots keep their tasks, hence their scenes.
    assert all((one, third, fourth) == (0, 2, 3) for one, _, third, fourth in dealt)
    assert [second for _, second, _, _ in dealt] == [0, 2, 3, 0, 2, 3]
