"""What a learner keeps of its successes, and what imitating them moves."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from actors.batch import make_batch
from actors.objective import PPOObjective
from actors.settings import PPOSettings
from actors.successes import Successes
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.policy.types import Belief
from avavla_ray.simulators.base import EpisodeSummary
from tests.support.drawn_fragments import drawn_fragments
from tests.support.policies import stirred_policy, tiny

C, A, K, U = 8, 7, 2, 3


def fragment(name: str, marks: list[int], *, first: int = 0, task: int = 0, ended: str = "") -> Fragment:
    """Decisions of one episode, from the `first` on, that are told apart by their proprioception."""
    T = len(marks)
    seen = Seen(
        images=np.zeros((T, 2, 4, 4, 3), np.uint8), text=np.zeros((T, 3), np.int64),
        proprio=np.array(marks, np.float32)[:, None], hidden=np.zeros((T, 1, 2), np.float32),
        history=np.array([[mark, 0] for mark in marks], np.float32), chunk=np.zeros((T, C, A), np.float32),
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
        group=np.full(T, -1), decision=first + np.arange(T), seen=seen, episode_ids=[name],
        finished=[EpisodeSummary(name, task, None, 0, ended == "success", T, T, K)] if ended else [],
    )  # fmt: skip


def made(limit: int, *, streams: int = 8, seed: int = 0) -> Successes:
    return Successes(limit, streams, K, seed=(seed,), depth_seed=(1,))


def walked(successes: Successes, turns: int = 40) -> np.ndarray:
    """What is told apart by of the next decisions, (turns, streams)."""
    marks = []
    for _ in range(turns):
        coming = successes.next()
        marks.append(coming.witnessed.inputs.proprio[:, 0].long())
        assert (coming.executed.sum(1) == marks[-1] % C + 1).all(), "rows of different decisions were mixed"
        assert 1 <= coming.latent_steps <= K
        successes.belief = coming.witnessed.belief
    return torch.stack(marks).numpy()


def kept(successes: Successes) -> set[int]:
    return set(walked(successes).ravel().tolist())


def learn(successes: Successes, *fragments: Fragment) -> None:
    successes.settle(successes.see(fragments))


def test_an_episode_is_kept_whole_when_it_has_succeeded_and_forgotten_when_it_has_not() -> None:
    successes = made(100)
    learn(successes, fragment("good", [1, 2]), fragment("bad", [3, 4]))
    assert len(successes) == 0, "nothing has ended"
    learn(successes, fragment("bad", [5], ended="time limit"), fragment("good", [6, 7], ended="success"))
    assert kept(successes) == {1, 2, 6, 7}
    assert len(successes) == 4


def test_episodes_are_walked_through_with_the_belief_of_today() -> None:
    """In their order, however the pieces came; after a gap, and where the rollout forgot, it is that of then."""
    successes = made(100)
    learn(successes, fragment("a", [1, 2]), fragment("a", [3], first=2, ended="success"))
    tail, head = fragment("b", [13], first=2, ended="success"), fragment("b", [11, 12])
    learn(successes, tail, head)
    learn(successes, fragment("gap", [21]), fragment("gap", [23, 24], first=2, ended="success"))
    chain = fragment("chain", [31, 32, 33], ended="success")
    chain.seen.history[1] = chain.seen.hidden[1] = 0
    learn(successes, chain)
    follows = {1: 2, 2: 3, 11: 12, 12: 13, 21: 23, 23: 24, 31: 32, 32: 33}
    as_it_was = {1: 1, 11: 11, 21: 21, 23: 23, 31: 31, 32: 0}  # history of the decisions that begin
    before: list[int] = []
    met = set()
    for turn in range(40):
        coming = successes.next().witnessed
        marks, history = (part[:, 0].long().tolist() for part in (coming.inputs.proprio, coming.belief.history))
        for row, mark in enumerate(marks):
            if before:
                assert mark == follows.get(before[row], mark)
                assert before[row] in follows or mark in (1, 11, 21, 31)
                assert history[row] == as_it_was.get(mark, 1000 + turn - 1)
            met.add(mark)
        before = marks
        successes.belief = Belief(*(torch.full_like(part, 1000 + turn) for part in coming.belief))
    assert met == {1, 2, 3, 11, 12, 13, 21, 23, 24, 31, 32, 33}


def test_few_decisions_weigh_less_than_many() -> None:
    successes = made(100, streams=8)
    learn(successes, fragment("a", [1, 2], ended="success"))
    first = successes.next()
    assert first.weight == 2 / 8
    successes.belief = first.witnessed.belief
    learn(successes, fragment("b", list(range(10)), ended="success"))
    assert successes.next().weight == 1


def test_after_a_restart_all_streams_begin_with_what_was_remembered_then() -> None:
    successes = made(100)
    learn(successes, fragment("a", list(range(1, 9)), ended="success"))
    walked(successes, 3)
    successes.belief = Belief(*(torch.full_like(part, float("nan")) for part in successes.belief))
    successes.restart()
    assert all(part.isfinite().all() for part in successes.next().witnessed.belief)


def test_what_other_ranks_saw_the_end_of_counts() -> None:
    here, there = made(100), made(100, seed=1)
    here.see([fragment("good", [1]), fragment("bad", [2])])
    ended = there.see([fragment("good", [3], ended="success"), fragment("bad", [4], ended="time limit")])
    here.settle(ended)
    there.settle(ended)
    assert (kept(here), kept(there)) == ({1}, {3})


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
    successes = made(100)
    learn(successes, Fragment(**both))
    assert kept(successes) == {3}


def test_tasks_are_drawn_alike_and_the_fullest_makes_room() -> None:
    successes = made(10)
    learn(successes, fragment("rare", [100], task=1, ended="success"))
    for number in range(4):
        learn(successes, fragment(f"often-{number}", [10 * number + i for i in range(4)], ended="success"))
    marks = walked(successes, 400).ravel()
    assert set(marks.tolist()) == {100, *range(20, 24), *range(30, 34)}, "the oldest of the task with most of them went"
    assert 0.4 < (marks == 100).sum() / (marks % 10 == 0).sum() < 0.6, "half of what begins is of either task"
    learn(successes, fragment("long", list(range(200, 212)), task=2, ended="success"))
    assert len(successes) == 9, "an episode that is longer than there is room for goes again"


def test_it_holds_copies() -> None:
    successes, one = made(10), fragment("good", [1], ended="success")
    learn(successes, one)
    one.seen.proprio[:] = 5
    assert kept(successes) == {1}


def test_what_was_last_heard_of_longest_ago_is_forgotten_where_too_much_is_under_way() -> None:
    successes = made(10)
    learn(successes, *(fragment(f"long-{number}", [number] * 2) for number in range(5)))
    learn(successes, fragment("long-0", [10]))
    learn(successes, fragment("long-0", [11], ended="success"))
    assert kept(successes) == {0, 10, 11}
    learn(successes, fragment("long-1", [12], ended="success"), fragment("long-2", [13], ended="success"))
    assert kept(successes) == {0, 10, 11, 12, 2, 13}, "11 decisions were under way, and long-1 had waited longest"


def test_an_episode_may_end_with_a_decision_that_is_left_out() -> None:
    successes, ended = made(10), fragment("good", [2], ended="success")
    nothing = {f.name: part[:0] for f in fields(Fragment) if isinstance(part := getattr(ended, f.name), np.ndarray)}
    learn(successes, fragment("good", [1]), replace(ended, **nothing))
    assert kept(successes) == {1}


def test_latent_fragments_cannot_be_imitated() -> None:
    with pytest.raises(ValueError, match="what the policy saw"):
        made(10).see([replace(fragment("good", [1]), seen=None)])


@pytest.mark.parametrize("thinks", [False, True])
def test_imitation_is_the_likelihood_of_what_was_drawn_and_reaches_all_that_had_a_part_in_it(thinks: bool) -> None:
    policy = stirred_policy(tiny(action_noise=0.3, latent__enabled=thinks)).eval()
    fragments = drawn_fragments(policy, exits=False)
    for number, each in enumerate(fragments):
        each.episode_ids = [f"{number}-{name}" for name in each.episode_ids]
        each.finished = [EpisodeSummary(name, 0, None, 0, True, 9, 9, 1) for name in each.episode_ids]
    settings = PPOSettings(train_actions=True, imitation_weight=0.5)
    objective = PPOObjective(policy, settings)
    objective.optimizer_groups(cloning=False)
    batch, _ = make_batch(fragments, policy, settings, lambda values: values)
    successes = Successes(100, 32, policy.config.latent.max_steps if thinks else 0, seed=(0,), depth_seed=(1,))
    learn(successes, *fragments)
    chunks = {each.seen.chunk[row].tobytes(): each.seen.action_log_prob[row] for each in fragments for row in range(9)}
    plain, _, _ = objective(batch)
    for _ in range(3):
        imitation = successes.next()
        seen, depth = imitation.witnessed, imitation.latent_steps
        torch.manual_seed(7)
        normals = torch.randn(32, depth, policy.config.latent.update_dim)
        mean, belief, _ = policy.clone(seen.inputs, seen.belief, latent_steps=depth, noise=normals)
        likely = policy.action_noise(mean, chunk=seen.chunk)[1][imitation.executed].mean().item()
        torch.manual_seed(7)
        loss, parts, beliefs = objective(batch, imitation=imitation)
        assert parts["imitation_loss"].item() == pytest.approx(-likely, rel=1e-4)
        torch.testing.assert_close(beliefs["imitation"], belief)
        successes.belief = beliefs["imitation"]
        assert loss.item() == pytest.approx(
            plain.item() + 0.5 * imitation.weight * parts["imitation_loss"].item(), abs=1e-5
        )
        if not thinks:  # nothing is drawn but the chunk, and the weights have not moved: it is as likely as it was
            stored = np.stack([chunks[chunk.numpy().tobytes()] for chunk in imitation.witnessed.chunk])
            assert parts["imitation_loss"].item() == pytest.approx(-stored[imitation.executed.numpy()].mean(), rel=1e-4)

    (loss - plain).backward()
    moved = {
        name
        for name, parameters in policy.parameter_groups().items()
        if any(each.grad is not None and float(each.grad.abs().max()) > 1e-6 for each in parameters)
    }
    assert moved >= {"action", *(("transition", "reasoner") if thinks else ())}
    assert not moved & {"value", "gate"}
