"""What a learner keeps of its successes, and what imitating them moves."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from actors.batch import make_batch
from actors.objective import PPOObjective
from actors.settings import PPOSettings
from actors.successes import Successes
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.simulators.base import EpisodeSummary
from tests.support.drawn_fragments import drawn_fragments
from tests.support.policies import stirred_policy, tiny

C, A, K, U = 8, 7, 2, 3


def fragment(name: str, marks: list[int], *, task: int = 0, ended: str = "") -> Fragment:
    """Decisions of one episode that are told apart by their proprioception."""
    T = len(marks)
    seen = Seen(
        images=np.zeros((T, 2, 4, 4, 3), np.uint8), text=np.zeros((T, 3), np.int64),
        proprio=np.array(marks, np.float32)[:, None], hidden=np.zeros((T, 1, 2), np.float32),
        history=np.zeros((T, 2), np.float32), chunk=np.zeros((T, C, A), np.float32),
        action_log_prob=np.zeros((T, C), np.float32),
    )  # fmt: skip
    last = np.arange(T) == T - 1
    numbers = {name: np.zeros(T, np.int64) for name in ("version", "episode")}
    floats = {name: np.zeros((T, K), np.float32) for name in ("log_prob", "entropy", "exit_score", "exit_log_prob")}
    return Fragment(
        z=np.zeros((T, K + 1, 2), np.float32), u=np.zeros((T, K, U), np.float32), **floats, **numbers,
        steps=np.full(T, K), encoding=np.zeros((T, 2), np.float32), tokens=np.zeros((T, 1, 2), np.float32),
        reward=np.zeros(T, np.float32), duration=np.array(marks) % C + 1, terminated=last & (ended == "success"),
        truncated=last & (ended == "time limit"), next_z=np.zeros((T, 2), np.float32), task=np.full(T, task),
        group=np.full(T, -1), seen=seen, episode_ids=[name],
        finished=[EpisodeSummary(name, task, None, 0, ended == "success", T, T, K)] if ended else [],
    )  # fmt: skip


def kept(successes: Successes, rows: int = 400) -> Counter[int]:
    drawn = successes.draw(rows, device="cpu")
    marks = drawn.witnessed.inputs.proprio[:, 0].long()
    assert (drawn.executed.sum(1) == marks % C + 1).all(), "rows of different decisions were mixed"
    return Counter(marks.tolist())


def learn(successes: Successes, *fragments: Fragment) -> None:
    successes.settle(successes.see(fragments))


def test_an_episode_is_kept_whole_when_it_has_succeeded_and_forgotten_when_it_has_not() -> None:
    successes = Successes(100, seed=0)
    learn(successes, fragment("good", [1, 2]), fragment("bad", [3, 4]))
    assert len(successes) == 0, "nothing has ended"
    learn(successes, fragment("bad", [5], ended="time limit"), fragment("good", [6, 7], ended="success"))
    assert set(kept(successes)) == {1, 2, 6, 7}
    assert len(successes) == 4


def test_what_other_ranks_saw_the_end_of_counts() -> None:
    here, there = Successes(100, seed=0), Successes(100, seed=1)
    here.see([fragment("good", [1]), fragment("bad", [2])])
    ended = there.see([fragment("good", [3], ended="success"), fragment("bad", [4], ended="time limit")])
    here.settle(ended)
    there.settle(ended)
    assert (set(kept(here)), set(kept(there))) == ({1}, {3})


def test_several_episodes_of_one_fragment_are_told_apart() -> None:
    first, second = fragment("a", [1, 2], ended="time limit"), fragment("b", [3], ended="success")
    both = {f.name: getattr(first, f.name) for f in fields(Fragment)}
    for name, part in both.items():
        if isinstance(part, np.ndarray):
            both[name] = np.concatenate([part, getattr(second, name)])
    both |= {
        "episode": np.array([0, 0, 1]), "episode_ids": ["a", "b"], "finished": first.finished + second.finished,
        "seen": Seen(*(np.concatenate([getattr(each.seen, f.name) for each in (first, second)]) for f in fields(Seen))),
    }  # fmt: skip
    successes = Successes(100, seed=0)
    learn(successes, Fragment(**both))
    assert set(kept(successes)) == {3}


def test_tasks_are_drawn_alike_and_the_fullest_makes_room() -> None:
    successes = Successes(10, seed=0)
    learn(successes, fragment("rare", [100], task=1, ended="success"))
    for number in range(4):
        learn(successes, fragment(f"often-{number}", [10 * number + i for i in range(4)], ended="success"))
    drawn = kept(successes)
    assert set(drawn) == {100, *range(20, 24), *range(30, 34)}, "the oldest of the task with most of them went"
    assert 150 < drawn[100] < 250
    learn(successes, fragment("long", list(range(200, 212)), task=2, ended="success"))
    assert len(successes) == 9, "an episode that is longer than there is room for goes again"


def test_it_holds_copies() -> None:
    successes, one = Successes(10, seed=0), fragment("good", [1], ended="success")
    learn(successes, one)
    one.seen.proprio[:] = 5
    assert set(kept(successes)) == {1}


def test_what_was_last_heard_of_longest_ago_is_forgotten_where_too_much_is_under_way() -> None:
    successes = Successes(10, seed=0)
    learn(successes, *(fragment(f"long-{number}", [number] * 2) for number in range(5)))
    learn(successes, fragment("long-0", [10]))
    learn(successes, fragment("long-0", [11], ended="success"))
    assert set(kept(successes)) == {0, 10, 11}
    learn(successes, fragment("long-1", [12], ended="success"), fragment("long-2", [13], ended="success"))
    assert set(kept(successes)) == {0, 10, 11, 12, 2, 13}, "11 decisions were under way, and long-1 had waited longest"


def test_an_episode_may_end_with_a_decision_that_is_left_out() -> None:
    successes, ended = Successes(10, seed=0), fragment("good", [2], ended="success")
    nothing = {f.name: part[:0] for f in fields(Fragment) if isinstance(part := getattr(ended, f.name), np.ndarray)}
    learn(successes, fragment("good", [1]), replace(ended, **nothing))
    assert set(kept(successes)) == {1}


def test_latent_fragments_cannot_be_imitated() -> None:
    with pytest.raises(ValueError, match="what the policy saw"):
        Successes(10, seed=0).see([replace(fragment("good", [1]), seen=None)])


def test_imitation_is_the_likelihood_of_what_was_drawn_and_reaches_all_that_had_a_part_in_it() -> None:
    policy = stirred_policy(tiny(action_noise=0.3)).eval()
    fragments = drawn_fragments(policy, exits=False)
    for number, each in enumerate(fragments):
        each.episode_ids = [f"{number}-{name}" for name in each.episode_ids]
        each.finished = [EpisodeSummary(name, 0, None, 0, True, 9, 9, 1) for name in each.episode_ids]
    settings = PPOSettings(train_actions=True, imitation_weight=0.5)
    objective = PPOObjective(policy, settings)
    objective.optimizer_groups(cloning=False)
    batch, _ = make_batch(fragments, policy, settings, lambda values: values)
    successes = Successes(100, seed=0)
    learn(successes, *fragments)
    imitation = successes.draw(32, device="cpu")
    plain, _, _ = objective(batch)
    loss, parts, _ = objective(batch, imitation=imitation)
    assert loss.item() == pytest.approx(plain.item() + 0.5 * parts["imitation_loss"].item(), abs=1e-5)

    # The weights have not moved: the likelihood is the one that the rollout stored.
    chunks = {each.seen.chunk[row].tobytes(): each.seen.action_log_prob[row] for each in fragments for row in range(9)}
    stored = np.stack([chunks[chunk.numpy().tobytes()] for chunk in imitation.witnessed.chunk])
    executed = imitation.executed.numpy()
    assert parts["imitation_loss"].item() == pytest.approx(-stored[executed].mean(), rel=1e-4)

    (loss - plain).backward()
    moved = {
        name
        for name, parameters in policy.parameter_groups().items()
        if any(each.grad is not None and float(each.grad.abs().max()) > 1e-6 for each in parameters)
    }
    assert moved >= {"action", "transition"}
    assert not moved & {"value", "gate", "reasoner"}
