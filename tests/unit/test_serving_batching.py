"""Which requests are decided together, and what happens to the others when something goes wrong."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from actors.serving import batching
from actors.serving.batching import Batcher
from actors.serving.faults import Fault
from actors.serving.messages import Answer, Ask, BeliefArrays
from avavla_ray.errors import InputError

EMPTY = np.zeros(0, np.float32)


def ask(number):
    return Ask(EMPTY, EMPTY, np.array([number], np.float32), None, "noise")


def answer(asked):
    return Answer(asked.proprio, BeliefArrays(EMPTY, EMPTY), 0, EMPTY, 1.0)


class Recorder:
    """Answers each request with its own number; remembers the batches."""

    def __init__(self, seconds=0.0):
        self.batches, self.seconds, self.at_once, self.most = [], seconds, 0, 0

    async def __call__(self, asks):
        self.batches.append([int(one.proprio[0]) for one in asks])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return [answer(one) for one in asks]


def run(numbers, decide, *, stagger=0.0, **options):
    """Every request's decision, or what it raised."""

    async def main():
        batcher = Batcher(decide, **{"max_batch": 4, "wait_seconds": 0.05, **options})
        waiting = []
        for number in numbers:
            waiting.append(asyncio.create_task(batcher(ask(number))))
            await asyncio.sleep(stagger)
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
        await batcher.close()
        return results

    return asyncio.run(main())


def test_requests_that_come_together_are_decided_together_and_each_gets_its_own():
    decide = Recorder()
    results = run(range(10), decide)
    assert [int(one.answer.actions[0]) for one in results] == list(range(10))
    assert decide.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [one.batch for one in results] == [4] * 8 + [2] * 2


def test_a_full_batch_does_not_wait():
    results = run(range(4), Recorder(), wait_seconds=10.0)
    assert all(one.queued_milliseconds < 5000 for one in results)


def test_a_lone_request_waits_no_longer_than_it_should():
    (result,) = run([1], Recorder(), wait_seconds=0.05)
    assert 45 <= result.queued_milliseconds < 10_000


def test_batch_of_one_switches_batching_off():
    decide = Recorder()
    run(range(5), decide, max_batch=1)
    assert decide.batches == [[0], [1], [2], [3], [4]]


def test_requests_gather_while_the_policy_decides():
    decide = Recorder(seconds=0.2)
    run(range(5), decide, stagger=0.01, wait_seconds=0.0)
    assert decide.batches == [[0], [1, 2, 3, 4]]


def test_several_policies_decide_at_once_but_one_batch_is_not_shared_out():
    decide = Recorder(seconds=0.2)
    run(range(8), decide, at_once=2)
    assert decide.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert decide.most == 2


def test_a_failure_reaches_every_request_of_its_batch_and_no_other():
    async def decide(asks):
        if asks[0].proprio[0] == 0:
            raise RuntimeError("broken")
        return [answer(one) for one in asks]

    results = run(range(6), decide)
    assert all(isinstance(one, RuntimeError) for one in results[:4])
    assert [int(one.answer.actions[0]) for one in results[4:]] == [4, 5]


def test_a_request_without_an_answer_leaves_its_neighbours_theirs():
    async def decide(asks):
        return [InputError("no numbers") if one.proprio[0] == 2 else answer(one) for one in asks]

    results = run(range(4), decide)
    assert isinstance(results[2], InputError)
    assert [int(results[number].answer.actions[0]) for number in (0, 1, 3)] == [0, 1, 3]


def test_a_client_that_has_gone_is_not_decided_for():
    decide = Recorder(seconds=0.1)

    async def main():
        batcher = Batcher(decide, max_batch=4, wait_seconds=0.0)
        first = asyncio.create_task(batcher(ask(0)))
        await asyncio.sleep(0.02)
        gone, last = asyncio.create_task(batcher(ask(1))), asyncio.create_task(batcher(ask(2)))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.gather(first, last)
        await batcher.close()

    asyncio.run(main())
    assert decide.batches == [[0], [2]]


def test_too_many_waiting_requests_are_refused(monkeypatch):
    monkeypatch.setattr(batching, "MAX_QUEUED", 3)
    results = run(range(10), Recorder(seconds=0.05), max_batch=1)
    refused = [one for one in results if isinstance(one, Fault)]
    assert refused
    assert all(one.status == 503 and "ask again later" in str(one) for one in refused)


@pytest.mark.parametrize("count", [1, 3])
def test_closing_ends_every_worker(count):
    async def main():
        batcher = Batcher(Recorder(), max_batch=4, wait_seconds=0.0, at_once=count)
        await asyncio.sleep(0)
        await batcher.close()
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1
