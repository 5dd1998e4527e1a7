"""The ledger of a collection: the same attempts are kept however they are interleaved or interrupted."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avavla_ray.demonstrations.collection import FAILED, KEPT, LEDGER, LOST, Attempt, Collection
from avavla_ray.errors import InputError

IDENTITY = {"suite": "libero_object", "seed": 0}


def outcome(attempt: Attempt, salt: int) -> str:
    return KEPT if random.Random(f"{salt}{attempt}").random() < 0.9 else FAILED


def run(collection: Collection, runners: int, salt: int, order: random.Random, stop_after: int | None = None) -> None:
    """Keep `runners` attempts in flight and end them in random order; leave the rest in flight when stopping."""
    running: list[Attempt] = []
    ended = 0
    while True:
        while len(running) < runners and (attempt := collection.take()) is not None:
            running.append(attempt)
        if not running or ended == stop_after:
            return
        attempt = running.pop(order.randrange(len(running)))
        collection.settle(attempt, outcome(attempt, salt))
        ended += 1


@given(
    tasks=st.integers(1, 3), wanted=st.integers(1, 6), runners=st.integers(1, 7), salt=st.integers(0, 50),
    stop=st.integers(0, 12), more=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_runners_and_interruptions_do_not_change_what_is_kept(
    tmp_path_factory, tasks, wanted, runners, salt, stop, more
):
    alone = Collection(tmp_path_factory.mktemp("alone"), IDENTITY, range(tasks), wanted + more)
    run(alone, 1, salt, random.Random(0))
    folder = tmp_path_factory.mktemp("together")
    run(Collection(folder, IDENTITY, range(tasks), wanted), runners, salt, random.Random(salt), stop_after=stop)
    run(Collection(folder, IDENTITY, range(tasks), wanted), runners, salt, random.Random(salt + 1))
    extended = Collection(folder, IDENTITY, range(tasks), wanted + more)
    run(extended, runners, salt, random.Random(salt + 2))
    assert extended.done
    assert extended.outcomes == alone.outcomes
    for task in range(tasks):
        assert len(extended.kept(task)) == wanted + more


def test_a_runner_stays_with_its_task_and_spreads_otherwise(tmp_path):
    collection = Collection(tmp_path, IDENTITY, [0, 1], 3)
    assert collection.take() == (0, 0)
    assert collection.take(None, avoided=[0]) == (1, 0)
    assert collection.take(1, avoided=[0]) == (1, 1)
    assert collection.take(0, avoided=[1]) == (0, 1)


def test_a_lost_file_is_made_again(tmp_path):
    collection = Collection(tmp_path, IDENTITY, [0], 2)
    run(collection, 1, 1, random.Random(0))
    gone = collection.kept(0)[0]
    collection.forget(gone)
    assert collection.take() == gone


def test_seeds_differ_between_attempts_tasks_and_collections():
    seeds = {Attempt(task, number).seed(base) for task in range(4) for number in range(50) for base in range(3)}
    assert len(seeds) == 4 * 50 * 3
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_another_collections_folder_is_refused(tmp_path):
    run(Collection(tmp_path, IDENTITY, [0], 1), 1, 0, random.Random(0))
    with pytest.raises(InputError, match="seed 0 -> 1"):
        Collection(tmp_path, {**IDENTITY, "seed": 1}, [0], 1)
    (tmp_path / LEDGER).write_text(json.dumps({"identity": IDENTITY}))
    with pytest.raises(InputError, match="no ledger of ours"):
        Collection(tmp_path, IDENTITY, [0], 1)


def test_a_task_that_is_never_solved_ends_the_collection(tmp_path):
    collection = Collection(tmp_path, IDENTITY, [4], 5)
    with pytest.raises(InputError, match="task 4 failed in 10 of 10 attempts"):
        for _ in range(50):
            attempt = collection.take()
            collection.settle(attempt, FAILED)


def test_lost_attempts_are_no_failures_of_the_expert(tmp_path):
    collection = Collection(tmp_path, IDENTITY, [0], 2)
    for end in (*[LOST] * 12, FAILED, KEPT, KEPT):
        attempt = collection.take()
        assert attempt is not None
        collection.settle(attempt, end)
    assert collection.done


def test_an_attempt_that_is_withdrawn_is_taken_again_unless_its_task_is_left_out(tmp_path):
    collection = Collection(tmp_path, IDENTITY, [0, 1], 1)
    attempt = collection.take()
    collection.withdraw(attempt)
    assert collection.take() == attempt
    collection.leave_out(attempt, "no expert")
    assert collection.take() == (1, 0)
    assert collection.take() is None
    assert collection.outcomes == {}
