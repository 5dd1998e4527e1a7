"""Deliveries while simulators go on: whatever is complete at once, nothing twice, and the same as in lockstep."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.placement import PolicyCopy
from actors.rollout import Rollout
from actors.slots import CHUNK
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.action_noise import with_action_noise
from avavla_ray.policy.types import Belief, PolicyInputs
from avavla_ray.simulators.base import SimulatorFailure
from tests.support.fragments import POINT, lockstep, order, point_rollout
from tests.support.point_simulator import PointSimulator, make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny

COMPARED = ("z", "u", "steps", "reward", "duration", "terminated", "truncated", "next_z", "task")


def make_rollout(*arguments, simulators: int = 4, **options) -> Rollout:
    return point_rollout(stirred_policy(tiny()).eval(), *arguments, simulators=simulators, seed=(0, 1, 0), **options)


def by_episode(fragments: list[Fragment]) -> dict[str, dict[str, np.ndarray]]:
    """The rows of every episode, in order."""
    parts = defaultdict[str, list[dict[str, np.ndarray]]](list)
    for fragment in fragments:
        for index, name in enumerate(fragment.episode_ids):
            rows = fragment.episode == index
            parts[name].append({field: getattr(fragment, field)[rows] for field in COMPARED})
    return {
        name: {field: np.concatenate([part[field] for part in of]) for field in COMPARED} for name, of in parts.items()
    }


def test_a_delivery_is_what_is_complete_and_ends_with_its_episode_or_its_size() -> None:
    rollout, finished = make_rollout(), []
    for _ in range(60):
        fragments, report = rollout.deliver(order(2))
        assert fragments
        assert report.decisions == sum(map(len, fragments))
        assert report.env_steps == sum(int(fragment.duration.sum()) for fragment in fragments)
        for fragment in fragments:
            ended = bool(fragment.terminated[-1] or fragment.truncated[-1])
            assert len(fragment.episode_ids) == 1
            assert len(fragment) == 2 or ended
            assert len(fragment.finished) == ended
            assert not (fragment.terminated | fragment.truncated)[:-1].any()
        # An episode is handed over within the decision that ended it.
        told = [episode.episode_id for fragment in fragments for episode in fragment.finished]
        assert sorted(episode.episode_id for episode in report.finished) == sorted(told)
        finished += [episode.episode_id for episode in report.finished]
    assert len(finished) == len(set(finished)) > 20


@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("decisions", [1, 2, 16])
def test_what_is_played_depends_neither_on_buffers_nor_on_the_size_of_fragments(buffers: int, decisions: int) -> None:
    expected = by_episode(lockstep(make_rollout(), 20)[0])
    rollout, fragments = make_rollout(buffers=buffers), []
    while sum(map(len, fragments)) < 60:
        fragments += rollout.deliver(order(decisions))[0]
    played = by_episode(fragments)
    assert len(played) > 10
    for name, rows in played.items():
        for field, values in rows.items():
            known = expected[name][field][: len(values)] if name in expected else values
            values = values[: len(known)]
            if field == "next_z":  # the cut at the end of either is bootstrapped from the same, but in another batch
                values, known = values[:-1], known[:-1]
            np.testing.assert_allclose(values, known, atol=1e-4)


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_runner_that_holds_hands_in_what_has_ended_and_goes_on_as_if_it_had_not(buffers: int) -> None:
    expected = by_episode(lockstep(make_rollout(), 20)[0])
    rollout, fragments, ended_on_hold, cut_on_hold = make_rollout(buffers=buffers), [], 0, 0
    while sum(map(len, fragments)) < 60:
        fragments += rollout.deliver(order(2))[0]
        more, report = rollout.deliver(replace(order(2), hold=True))
        # With their rows, whether they succeeded or their time was up.
        told = {name for fragment in more for name in fragment.episode_ids if fragment.finished}
        assert {episode.episode_id for episode in report.finished} <= told
        cut_on_hold += sum(int(fragment.truncated.sum()) for fragment in more)
        assert not any(slot.flying == CHUNK for slot in rollout._slots)
        ended_on_hold += len(report.finished)
        assert rollout.deliver(replace(order(2), hold=True))[1].finished == [], "they are told once"
        fragments += more
    assert ended_on_hold > 0
    assert cut_on_hold > 0
    for name, rows in by_episode(fragments).items():
        for field, values in rows.items():
            known = expected[name][field][: len(values)] if name in expected else values
            if field != "next_z":
                np.testing.assert_allclose(values[: len(known)], known, atol=1e-4)


def test_a_fragment_is_bootstrapped_from_the_start_of_the_next() -> None:
    rollout, last = make_rollout(), dict[str, np.ndarray]()
    for _ in range(30):
        for fragment in rollout.deliver(order(2))[0]:
            name = fragment.episode_ids[0]
            if name in last:
                np.testing.assert_array_equal(last.pop(name), fragment.z[0, 0])
            if not fragment.terminated[-1] and not fragment.truncated[-1]:
                last[name] = fragment.next_z[-1]
            assert np.isfinite(fragment.next_z).all()


class Renumbered(PolicyCopy):
    """Takes any weights for its own under another number."""

    def use(self, handle: WeightHandle) -> None:
        self.version = handle.version


def test_rows_carry_the_version_that_decided_them() -> None:
    placement = Renumbered(stirred_policy(tiny()).eval(), point_statistics())
    rollout = Rollout(placement, make_point_simulator, POINT, simulators=4, slots=4)
    seen = set()
    for version in range(40):
        fragments, report = rollout.deliver(order(3, version))
        assert report.version == min(fragment.oldest_version for fragment in fragments)
        for fragment in fragments:
            assert (np.diff(fragment.version) >= 0).all()
            assert version - 8 < fragment.version.min() <= fragment.version.max() <= version
            seen |= set(fragment.version.tolist())
    assert len(seen) > 30
    fragments, report = rollout.deliver(order(3, 50, lockstep=True))
    assert report.version < 50  # what was flying before
    fragments, report = rollout.deliver(order(3, 51, lockstep=True))
    assert {int(version) for fragment in fragments for version in fragment.version} == {51}
    assert [len(fragment) for fragment in fragments] == [3] * 4


def test_a_notice_brings_everything_in_and_ends_the_play() -> None:
    notices: list[str] = []
    rollout = make_rollout(notice=lambda: notices[0] if notices else None)
    delivered = [rollout.deliver(order(16)) for _ in range(3)]
    notices.append("the machine goes")
    delivered.append(rollout.deliver(order(16)))
    fragments, report = delivered[-1]
    assert report.leaving == "the machine goes"
    # Every chunk that was executed is there, whatever was under way.
    executed = sum(simulator._chunks for simulator in rollout.simulators)
    assert sum(report.decisions for _, report in delivered) == executed >= 10
    assert all(np.isfinite(fragment.next_z).all() for fragment in fragments)
    played = by_episode([fragment for fragments, _ in delivered for fragment in fragments])
    expected = by_episode(lockstep(make_rollout(), 20)[0])
    for name, rows in played.items():
        np.testing.assert_allclose(rows["z"], expected[name]["z"][: len(rows["z"])], atol=1e-4)
        np.testing.assert_allclose(rows["next_z"], expected[name]["next_z"][: len(rows["z"])], atol=1e-4)
    assert rollout.deliver(order(16))[0] == []
    assert rollout.deliver(order(16))[1].leaving == "the machine goes"


def test_a_runner_that_is_let_go_hands_in_everything() -> None:
    rollout = make_rollout()
    delivered = [rollout.deliver(order(16)) for _ in range(3)]
    delivered.append(rollout.deliver(order(16, last=True)))
    executed = sum(simulator._chunks for simulator in rollout.simulators)
    assert sum(report.decisions for _, report in delivered) == executed >= 10
    assert delivered[-1][1].leaving == "this runner is let go"
    assert rollout.deliver(order(16))[0] == []


def test_tasks_are_dealt_by_weight_and_quarantine() -> None:
    rollout, tasks = make_rollout(), Counter[int]()
    rollout.deliver(order(4))
    for _ in range(60):
        tasks.update(e.task for e in rollout.deliver(order(4, task_weights={0: 3.0, 1: 1.0}))[1].finished)
    assert 0.65 < tasks[0] / tasks.total() < 0.85
    rollout.deliver(order(16, task_weights={0: 3.0, 1: 1.0}, quarantined={0: "it kills"}, lockstep=True))
    _, report = rollout.deliver(order(16, task_weights={0: 3.0, 1: 1.0}, lockstep=True))
    assert {episode.task for episode in report.finished} == {1}


def test_a_runner_that_is_left_alone_plays_what_the_others_have_played() -> None:
    copy = PolicyCopy(stirred_policy(tiny()).eval(), point_statistics(), version=0)
    rollout = Rollout(copy, make_point_simulator, POINT, slots=2)  # the first of two runners

    def played(place: tuple[int, int]) -> set[int]:
        return {e.task for _ in range(12) for e in rollout.deliver(order(16, place=place))[1].finished}

    assert len(played((0, 2))) == 1
    assert len(played((0, 1))) == 2
    rollout.close()


def test_draws_of_chunks_and_exits_are_kept_and_replay() -> None:
    policy = stirred_policy(tiny()).eval()
    with_action_noise(policy, 0.1)
    rollout = point_rollout(policy, train_actions=True, draw_exits=True)
    for _ in range(12):
        for fragment in rollout.deliver(order(3))[0]:
            seen = fragment.seen
            assert seen is not None
            assert seen.images.dtype == np.uint8
            replay = policy.replay(
                PolicyInputs(*(torch.from_numpy(part.copy()) for part in (seen.images, seen.text, seen.proprio))),
                Belief(torch.from_numpy(seen.hidden.copy()), torch.from_numpy(seen.history.copy())),
                torch.from_numpy(fragment.u), torch.from_numpy(fragment.steps), torch.from_numpy(seen.chunk),
            )  # fmt: skip
            taken = np.arange(5) < fragment.steps[:, None]
            np.testing.assert_allclose(replay.log_prob.detach().numpy()[taken], fragment.log_prob[taken], atol=1e-3)
            np.testing.assert_allclose(replay.action_log_prob.detach(), seen.action_log_prob, atol=1e-3)
            assert (fragment.exit_log_prob[taken] <= 0).all()


def test_a_policy_without_a_latent_loop_is_played_too() -> None:
    policy = stirred_policy(tiny(latent__enabled=False)).eval()
    with_action_noise(policy, 0.1)
    rollout = point_rollout(policy, train_actions=True)
    fragments = [fragment for _ in range(10) for fragment in rollout.deliver(order(3))[0]]
    assert all((fragment.steps == 0).all() for fragment in fragments)
    assert all(len(fragment.seen.chunk) == len(fragment) for fragment in fragments if fragment.seen)


# Groups


class ClumsyPoint(PointSimulator):
    """Of all of them together every eleventh chunk breaks one."""

    together = 0

    def run_chunk(self, actions, *, record=False):
        ClumsyPoint.together += 1
        if ClumsyPoint.together % 11 == 0:
            raise SimulatorFailure("the point stumbled")
        return super().run_chunk(actions, record=record)


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_group_is_one_start_played_so_often_and_comes_whole(synchronous: bool) -> None:
    rollout, groups, decisions = make_rollout(group_size=3), [], 0
    reported = []
    while len(groups) < 12:
        fragments, report = rollout.deliver(order(4, lockstep=synchronous))
        groups += fragments
        decisions += report.decisions
        reported += report.finished
        if synchronous:
            assert report.decisions >= 4 * 4
        assert not report.groups_dropped
    slots = Counter()
    for fragment in groups:
        assert (fragment.group == 0).all()
        assert len(fragment.finished) == len(fragment.episode_ids) == 3
        assert [episode.episode_id for episode in fragment.finished] == fragment.episode_ids
        assert len({(episode.task, episode.seed) for episode in fragment.finished}) == 1
        assert (fragment.terminated | fragment.truncated).sum() == 3
        slots[len({name.split("-")[1] for name in fragment.episode_ids})] += 1
        # Alike in the start, and nothing else.
        first = [int(np.flatnonzero(fragment.episode == index)[0]) for index in range(3)]
        np.testing.assert_allclose(fragment.z[first, 0], fragment.z[first[:1] * 3, 0], atol=1e-4)
        assert np.abs(fragment.u[first[0]] - fragment.u[first[1]]).max() > 0.1
    assert slots[3] + slots[2] > slots[1]
    assert {episode.task for fragment in groups for episode in fragment.finished} == {0, 1}
    names = [episode.episode_id for episode in reported]
    assert len(names) == len(set(names)) >= 36
    assert decisions == sum(map(len, groups))


def test_in_every_synchronous_round_all_simulators_play() -> None:
    rollout = make_rollout(group_size=4)
    for _ in range(4):
        rollout.deliver(order(1, lockstep=True))
        assert all(slot.asked for slot in rollout._slots)


class Mortal(PointSimulator):
    """What all of them were forked from dies, so many of their chunks long."""

    deaths = 0

    def run_chunk(self, actions, *, record=False):
        if Mortal.deaths:
            Mortal.deaths -= 1
            raise SimulatorFailure("the process that simulators are forked from died", "crash", shared=True)
        return super().run_chunk(actions, record=record)


def test_simulators_that_go_down_together_put_no_task_into_quarantine(monkeypatch) -> None:
    rollout = make_rollout(Mortal)
    lockstep(rollout, 2)
    monkeypatch.setattr(Mortal, "deaths", 8)  # two of every simulator
    _, report = lockstep(rollout, 4)
    assert report.failures == {"crash": 8}
    assert report.decisions > 0
    assert not report.quarantined
    monkeypatch.setattr(Mortal, "deaths", 10**6)
    assert "forked from died" in str(lockstep(rollout, 20)[1].failure), "it does not go on like that for ever"


def test_an_aborted_episode_leaves_its_group_smaller_and_one_alone_is_dropped() -> None:
    rollout, sizes, dropped, aborted = make_rollout(ClumsyPoint, group_size=2), Counter(), 0, 0
    for _ in range(60):
        fragments, report = rollout.deliver(order(4))
        sizes.update(len(fragment.finished) for fragment in fragments)
        dropped, aborted = dropped + report.groups_dropped, aborted + report.aborted
    assert set(sizes) == {2}
    assert 0 < dropped <= aborted

    rollout, sizes = make_rollout(ClumsyPoint, group_size=4), Counter()
    for _ in range(60):
        sizes.update(len(fragment.finished) for fragment in rollout.deliver(order(4))[0])
    assert {2, 3} & set(sizes)
    assert max(sizes) <= 4


def test_a_notice_hands_in_the_groups_that_can_be_compared() -> None:
    notices: list[str] = []
    rollout = make_rollout(group_size=4, notice=lambda: notices[0] if notices else None)
    while not rollout.deliver(order(4))[1].finished:
        pass
    notices.append("the machine goes")
    fragments, report = rollout.deliver(order(4))
    assert report.leaving
    assert all(len(fragment.finished) == len(fragment.episode_ids) >= 2 for fragment in fragments)
    assert report.groups_dropped + len(fragments) >= 1
