"""A policy that decides for several runners: whatever waits is one batch, and weights change between batches only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from actors.placement import Answer, PolicyServerLost, Question, answer_together
from actors.weights import WeightHandle, pull_if_newer
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.translation import Translation
from avavla_ray.timing import span

PAUSE_S = 0.2  # between two attempts to reach servers that are not there


class PolicyServer:
    """An actor with the policy on its GPU, or on the CPU where it was given none.

    Questions gather while a batch is decided and are the next batch, so that batches grow with the load and nobody
    waits for a batch to fill. It has no state but the weights, which it pulls with the first question: one that has
    been started again answers as the one before it.

    Args:
        batch: observations that are decided together at most; a question is never divided.
        exit_threshold: of the gate; None takes the policy's own.
        threads: of the processor.
    """

    def __init__(
        self, config: PolicyConfig, *, batch: int = 64, exit_threshold: float | None = None, threads: int = 1
    ) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        self._policy = AvaVlaPolicy(config).eval().to(device)
        self._limit, self._exit_threshold = batch, exit_threshold
        self._version, self._newest = -1, WeightHandle(-1, ())
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "policy")
        self._batches = self._questions = self._decisions = 0
        self._seconds = 0.0

    async def decide(self, question: Question, handle: WeightHandle) -> Answer:
        """Answer with the newest weights that any question has come with.

        Raises:
            RayError: the weights are lost.
        """
        if handle.version > self._newest.version:
            self._newest = handle
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await answer

    async def statistics(self) -> dict[str, Any]:
        """version, pid; batches, questions and decisions so far, and the seconds that they took."""
        return {
            "version": self._version, "pid": os.getpid(), "batches": self._batches, "questions": self._questions,
            "decisions": self._decisions, "seconds": self._seconds,
        }  # fmt: skip

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            room = self._limit - len(batch[0][0])
            while self._waiting and len(self._waiting[0][0]) <= room:
                batch.append(self._waiting.popleft())
                room -= len(batch[-1][0])
            questions = [question for question, _ in batch]
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.run_in_executor(self._thread, self._decide, questions, self._newest)
            except Exception as error:  # noqa: BLE001  everyone who asked gets it
                if isinstance(error, RayError):  # the next question may bring weights that are not lost
                    self._newest = WeightHandle(self._version, ())
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            for (_, answer), given in zip(batch, answers, strict=True):
                answer.set_result(given)

    def _decide(self, questions: list[Question], newest: WeightHandle) -> list[Answer]:
        begun = time.perf_counter()
        self._version = pull_if_newer(self._policy, self._version, newest)
        with span("policy"):
            answers = answer_together(self._policy, questions, self._version, self._exit_threshold, self._batches)
        self._batches += 1
        self._questions += len(questions)
        self._decisions += sum(question.decided for question in questions)
        self._seconds += time.perf_counter() - begun
        return answers


def start_policy_servers(
    count: int,
    config: PolicyConfig,
    *,
    batch: int,
    exit_threshold: float | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> list[Any]:
    """Handles of servers that come back by themselves when they die. They die with whoever started them."""
    actor: Any = ray.remote(max_restarts=-1, num_cpus=num_cpus, num_gpus=num_gpus)(PolicyServer)
    threads = max(1, int(num_cpus))
    return [
        actor.remote(config, batch=batch, exit_threshold=exit_threshold, threads=threads) for _ in range(count)
    ]  # fmt: skip


class ServedPolicy:
    """Servers that decide for this runner: one of them, until it dies, then the next.

    Args:
        servers: handles of `PolicyServer` actors. first: which to begin with.
        timeout_s: a server that has not answered for so long has hung, and is ended so that it starts again.
    """

    def __init__(
        self, servers: Sequence[Any], config: PolicyConfig, statistics: Statistics, *, first: int = 0,
        timeout_s: float = 60.0,
    ) -> None:  # fmt: skip
        self.translation = Translation(config, statistics)
        self.timeout_s = timeout_s
        self._handle = WeightHandle(-1, ())
        self._servers, self._at = list(servers), first % len(servers)
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    @property
    def version(self) -> int:
        return self._handle.version

    @property
    def woken(self) -> int:
        return self._woken

    def use(self, handle: WeightHandle) -> None:
        if handle.version > self._handle.version:
            self._handle = handle

    def ask(self, question: Question) -> Asked:
        return Asked(self, question)

    def heard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def close(self) -> None:
        os.close(self._woken)
        wake, self._wake = self._wake, -1
        os.close(wake)

    def send(self, question: Question) -> tuple[Any, Any]:
        """Ask the server that this runner keeps to; it, and the reference of its answer."""
        server = self._servers[self._at]
        return server, server.decide.remote(question, self._handle)

    def leave(self, server: Any) -> None:
        """Keep to the next server from now on, if it is still this one."""
        if self._servers[self._at] is server:
            self._at = (self._at + 1) % len(self._servers)

    def answered(self, _: Future[Any]) -> None:
        """From whatever thread an answer arrives in."""
        with contextlib.suppress(BlockingIOError, OSError):  # the pipe is full or closed: nobody sleeps
            os.write(self._wake, b"!")


class Asked:
    """A question that a server has been asked. `result` asks again until one answers, with the same randomness."""

    def __init__(self, placement: ServedPolicy, question: Question) -> None:
        self._placement, self._question = placement, question
        self._server: Any = None
        self._reference: Any = None
        self._lost_weights = False
        self._begun = self._sent = time.monotonic()
        self._send()

    @property
    def done(self) -> bool:
        return self._future.done()

    def result(self) -> Answer:
        """The answer.

        Raises:
            PolicyServerLost: none came for twice the servers' timeout.
            RayError: the weights that the question was sent with are lost; the next call asks with newer ones.
        """
        if self._lost_weights:
            self._begun, self._lost_weights = time.monotonic(), False
            self._send()
        limit = self._placement.timeout_s
        while True:
            patience = self._sent + limit - time.monotonic()
            try:
                return ray.get(self._reference, timeout=max(0.0, patience))
            except GetTimeoutError:
                reason = f"has not answered for {limit:.0f} s and is started again"
                ray.kill(self._server, no_restart=False)
            except RayTaskError as error:
                if not isinstance(error.cause, RayError):
                    raise
                self._lost_weights = True
                raise error.cause from None
            except RayError as error:
                reason = f"is gone ({type(error).__name__})"
            if time.monotonic() - self._begun > 2 * limit:
                raise PolicyServerLost(
                    f"no policy server has answered for {2 * limit:.0f} s: the last one {reason}", "hang"
                )
            self._placement.leave(self._server)
            time.sleep(PAUSE_S)
            self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        self._server, self._reference = self._placement.send(self._question)
        self._future = self._reference.future()
        self._future.add_done_callback(self._placement.answered)
