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
from actors.weights import WeightHandle
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.thresholds import Threshold
from avavla_ray.policy.translation import Translation
from avavla_ray.policy.weights import WeightBuffer, load_flat
from avavla_ray.timing import span, switch, take_seconds

PAUSE_S = 0.2  # between two attempts to reach servers that are not there


class PolicyServer:
    """An actor with the policy on its GPU, or on the CPU where it was given none.

    Questions gather while a batch is decided and are the next batch, so that batches grow with the load and nobody
    waits for a batch to fill. It has no state but the weights, which it pulls with the first question: one that has
    been started again answers as the one before it.

    Args:
        batch: observations that are decided together at most; a question is never divided.
        exit_threshold: of the gate, as `AvaVlaPolicy.decide` takes it; None takes the policy's own.
        threads: of the processor. profile: time what it does, see avavla_ray/timing.py.
    """

    def __init__(
        self,
        config: PolicyConfig,
        *,
        batch: int = 64,
        exit_threshold: Threshold | None = None,
        threads: int = 1,
        profile: bool = False,
        precision: str = "float32",
    ) -> None:
        torch.set_num_threads(threads)
        switch(profile)
        device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        self._policy = AvaVlaPolicy(config).eval().to(device)
        self._policy.set_precision(precision)
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
        """version, pid; batches, questions and decisions so far, and the seconds that they took; timings since the last
        call, of a server that is profiled."""
        return {
            "version": self._version, "pid": os.getpid(), "batches": self._batches, "questions": self._questions,
            "decisions": self._decisions, "seconds": self._seconds, "timings": take_seconds("server"),
        }  # fmt: skip

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            room = self._limit - len(batch[0][0])
            while self._waiting and len(self._waiting[0][0]) <= room:
                batch.append(self._waiting.popleft())
                room -= len(batch[-1][0])
            questions = [question for question, _ in batch]
            newest, loop = self._newest, asyncio.get_running_loop()
            try:
                weights = await newest.reference[0] if newest.version > self._version else None
                answers = await loop.run_in_executor(self._thread, self._decide, questions, weights, newest.version)
            except Exception as error:  # noqa: BLE001  everyone who asked gets it
                if isinstance(error, RayError) and self._newest is newest:
                    self._newest = WeightHandle(self._version, ())  # the next question may bring some that are not lost
                for _, answer in batch:
                    if not answer.done():  # nobody waits any more
                        answer.set_exception(error)
                continue
            for (_, answer), given in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(given)

    def _decide(self, questions: list[Question], weights: WeightBuffer | None, version: int) -> list[Answer]:
        begun = time.perf_counter()
        if weights is not None:
            with span("weights"):
                load_flat(self._policy, weights)
            self._version = version
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
    exit_threshold: Threshold | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    profile: bool = False,
) -> list[Any]:
    """Handles of servers that come back by themselves when they die. They die with whoever started them."""
    actor: Any = ray.remote(max_restarts=-1, num_cpus=num_cpus, num_gpus=num_gpus)(PolicyServer)
    threads = max(1, int(num_cpus))
    return [
        actor.remote(config, batch=batch, exit_threshold=exit_threshold, threads=threads, profile=profile)
        for _ in range(count)
    ]  # fmt: skip


class ServedPolicy:
    """Servers that decide for this runner: one of them, until it dies, then the next.

    Args:
        servers: handles of `PolicyServer` actors. first: which to begin with.
        timeout_s: a server that has answered before and is silent for so long has hung, and is ended so that it starts
            again. start_s: how long to wait for one that is starting; with `timeout_s` less than the driver waits for
            a delivery, so that what the runner has is handed in before it is started again.
    """

    def __init__(
        self,
        servers: Sequence[Any],
        config: PolicyConfig,
        statistics: Statistics,
        *,
        first: int = 0,
        timeout_s: float = 60.0,
        start_s: float = 480.0,
    ) -> None:
        self.translation = Translation(config, statistics)
        self.timeout_s, self.start_s = timeout_s, start_s
        self.servers = tuple(servers)
        self.handle = WeightHandle(-1, ())
        self.at = first % len(servers)  # the server that this runner keeps to
        self.up = set[int]()  # those that have answered since they last died
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    @property
    def version(self) -> int:
        return self.handle.version

    @property
    def woken(self) -> int:
        return self._woken

    def use(self, handle: WeightHandle) -> None:
        if handle.version > self.handle.version:
            self.handle = handle

    def ask(self, question: Question) -> Asked:
        return Asked(self, question)

    def heard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def close(self) -> None:
        os.close(self._woken)
        wake, self._wake = self._wake, -1
        os.close(wake)

    def answered(self, _: Future[Any]) -> None:
        """From whatever thread an answer arrives in."""
        with contextlib.suppress(BlockingIOError, OSError):  # the pipe is full or closed: nobody sleeps
            os.write(self._wake, b"!")


class Asked:
    """A question that a server has been asked. `result` asks again until one answers, with the same randomness."""

    def __init__(self, placement: ServedPolicy, question: Question) -> None:
        self._placement, self._question = placement, question
        self._reference: Any = None
        self._server = -1
        self._lost_weights = False
        self._begun = self._sent = time.monotonic()
        self._send()

    @property
    def done(self) -> bool:
        return self._future.done()

    def result(self) -> Answer:
        """The answer.

        Raises:
            PolicyServerLost: none came, however often it was asked for.
            RayError: the weights that the question was sent with are lost; the next call asks with newer ones.
        """
        placement = self._placement
        if self._lost_weights:
            self._begun, self._lost_weights = time.monotonic(), False
            self._send()
        limit = placement.timeout_s + placement.start_s
        while True:
            here, alone = self._server, len(placement.servers) == 1
            patience = self._begun + limit - time.monotonic()
            if here in placement.up or not alone:
                patience = min(patience, self._sent + placement.timeout_s - time.monotonic())
            try:
                answer = ray.get(self._reference, timeout=max(0.0, patience))
            except GetTimeoutError:
                reason = f"server {here} has not answered for {time.monotonic() - self._sent:.0f} s"
                if here in placement.up:
                    print(f"policy {reason}: it is started again", flush=True)
                    ray.kill(placement.servers[here], no_restart=False)
            except RayTaskError as error:
                if not isinstance(error.cause, RayError):
                    raise
                self._lost_weights = True
                raise error.cause from None
            except RayError as error:
                reason = f"server {here} is gone ({type(error).__name__})"
            else:
                placement.up.add(here)
                return answer
            placement.up.discard(here)
            waited = time.monotonic() - self._begun
            if waited >= limit:
                raise PolicyServerLost(f"no policy server has answered for {waited:.0f} s: {reason}", "hang")
            if placement.at == here:
                placement.at = (here + 1) % len(placement.servers)
            time.sleep(PAUSE_S)
            self._send()

    def _send(self) -> None:
        self._server, self._sent = self._placement.at, time.monotonic()
        server = self._placement.servers[self._server]
        self._reference = server.decide.remote(self._question, self._placement.handle)
        self._future = self._reference.future()
        self._future.add_done_callback(self._placement.answered)
