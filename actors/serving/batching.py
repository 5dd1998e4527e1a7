"""Requests of several robots, decided together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.serving.faults import Fault
from actors.serving.messages import Answer, Ask
from avavla_ray.errors import InputError

Decide = Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | InputError]]]

MAX_QUEUED = 1024


@dataclass(frozen=True)
class Decided:
    """A decision, how long its request waited for it to begin, and how many were decided with it."""

    answer: Answer
    queued_milliseconds: float
    batch: int


class Batcher:
    """Collects requests until `max_batch` are there or `wait_seconds` have passed since the first, then decides.

    While all policies are deciding, requests gather without a limit of time, so that batches grow with the load.

    Args:
        decide: one forward pass; called by at most `at_once` batches at the same time, one a policy. An InputError in
            an answer's place is for that request alone.
    """

    def __init__(self, decide: Decide, *, max_batch: int, wait_seconds: float, at_once: int = 1) -> None:
        self._decide = decide
        self._max_batch = max_batch
        self._wait_seconds = wait_seconds
        self._queue: asyncio.Queue[tuple[Ask, float, asyncio.Future[Decided]]] = asyncio.Queue(MAX_QUEUED)
        self._collecting = asyncio.Lock()
        self._workers = [asyncio.create_task(self._work()) for _ in range(at_once)]

    async def __call__(self, ask: Ask) -> Decided:
        """The decision on one request.

        Raises:
            Fault: 503, too many wait.
            InputError: `decide` has no answer to this request.
            Exception: whatever `decide` raised for the batch.
        """
        decided: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((ask, time.perf_counter(), decided))
        except asyncio.QueueFull as error:
            raise Fault(503, f"{MAX_QUEUED} requests are waiting already: ask again later") from error
        return await decided

    async def close(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            # One collector at a time: two would share out between them what belongs into one batch.
            async with self._collecting:
                batch = await self._collect()
            if not batch:
                continue
            begun = time.perf_counter()
            try:
                answers = await self._decide([ask for ask, _, _ in batch])
            except Exception as error:  # noqa: BLE001  each of its requests gets it
                for _, _, decided in batch:
                    if not decided.done():
                        decided.set_exception(error)
                continue
            for (_, asked, decided), answer in zip(batch, answers, strict=True):
                if decided.done():  # its client has gone
                    continue
                if isinstance(answer, InputError):
                    decided.set_exception(answer)
                else:
                    decided.set_result(Decided(answer, 1e3 * (begun - asked), len(batch)))

    async def _collect(self) -> list[tuple[Ask, float, asyncio.Future[Decided]]]:
        batch = [await self._queue.get()]
        end = time.perf_counter() + self._wait_seconds
        while len(batch) < self._max_batch:
            try:
                batch.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                left = end - time.perf_counter()
                if left <= 0:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
        return [entry for entry in batch if not entry[2].done()]  # some clients have gone
