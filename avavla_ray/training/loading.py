"""Demonstrations loaded by Ray Data: what a walk requests is read, decoded and augmented in other processes.

Ray Data runs a finite pipeline, a walk has no end. So requests are cut into legs, each a pipeline of its own over a
list of draws; the next leg is started while the present one still delivers.

A leg has to fit into memory whole. Where Ray Data (2.60) holds tasks back because nobody takes what they have made,
its scheduling loop polls without a pause, since their output counts as ready. It does so in the process that trains: it
took half of each core, and the training thread waited for Python's lock after every operation.
"""

from __future__ import annotations

import functools
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import DataContext, ExecutionOptions, ExecutionResources, TaskPoolStrategy

from avavla_ray.demonstrations.decisions import Decisions, DrawLoader
from avavla_ray.demonstrations.schedule import Request
from avavla_ray.errors import InputError
from avavla_ray.machines import for_learners

_ARRAYS = ("images", "proprio", "actions", "mask")
_NUMBER, _ERROR = "number", "error"
_QUEUED = 2  # blocks that are taken out of the object store before they are asked for
_ROOM = 16  # times what a leg holds: Ray Data gives each operator's output a small share of its limit
_NOTICE = 30.0  # seconds without any decision after which the wait is announced


class RayDataSource:
    """Loads requests for a `WindowWalk` in Ray Data tasks: in order, ahead of their use, in bounded memory.

    The decisions are those that the loader would make in this process. A draw that cannot be loaded raises the loader's
    InputError when it, or one that is loaded in the same task, is asked for. Ray repeats tasks whose process or node
    dies.
    """

    def __init__(
        self,
        loader: DrawLoader,
        *,
        cpus: float = 1.0,
        draws_per_task: int = 8,
        tasks_per_leg: int = 16,
        megabytes: int = 256,
        patience: float = 900.0,
    ) -> None:
        """
        Args:
            cpus: tasks of a leg at a time, at least one. They claim no CPU of the cluster: whoever trains has to hold
                as many for them, or an elastic run would take them all for workers and starve.
            draws_per_task, tasks_per_leg: how requests are cut at most. The first leg is a single task, from which the
                size of a decision is learned.
            megabytes: of decisions in a leg, so that it is cut shorter; two are in the object store at a time.
            patience: seconds without any decision after which loading counts as stuck; more than `EpisodeReader` waits
                for a silent store.

        Raises:
            InputError: numbers that make no sense.
        """
        if cpus <= 0 or megabytes <= 0:
            raise InputError(f"{cpus} CPUs and {megabytes} MB to load demonstrations with: give more than 0")
        self.loader, self.cpus, self.patience = loader, cpus, patience
        self._draws_per_task, self._tasks_per_leg, self._megabytes = draws_per_task, tasks_per_leg, megabytes
        self._decision_bytes: float | None = None
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # each leg would announce itself

    def __call__(self, requests: Iterator[Request]) -> Generator[Decisions, None, None]:
        """The decisions of each request, in order. Closing the generator ends what is under way."""
        loader = ray.put(self.loader)
        legs: deque[_Leg] = deque()

        def start() -> None:
            coming = self._next_leg(requests)
            if coming:
                legs.append(_Leg(coming, self, loader))

        try:
            start()
            while legs:
                half = len(legs[0].requests) // 2
                for place, decisions in enumerate(legs[0].decisions()):
                    self._decision_bytes = decisions.images[0].nbytes
                    if place == half:
                        start()
                    yield decisions
                legs.popleft().close()
        finally:
            for leg in legs:
                leg.close()

    def _next_leg(self, requests: Iterator[Request]) -> list[Request]:
        """As many of them as fit, but at least one."""
        if self._decision_bytes is None:
            return list(itertools.islice(requests, self._draws_per_task))
        leg, room = list[Request](), float(self._megabytes * 2**20)
        for request in itertools.islice(requests, self._draws_per_task * self._tasks_per_leg):
            leg.append(request)
            room -= self.loader.count(request) * self._decision_bytes
            if room <= 0:
                break
        return leg

    def _pipeline(self, requests: Sequence[Request], loader: Any) -> ray.data.Dataset:
        """One block for `draws_per_task` requests."""
        size = self._draws_per_task
        tasks = [requests[first : first + size] for first in range(0, len(requests), size)]
        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = None  # a draw must not be cut in two
        context.execution_options = ExecutionOptions(
            preserve_order=True,
            resource_limits=ExecutionResources.for_limits(object_store_memory=_ROOM * self._megabytes * 2**20),
        )
        placed = {"resources": where} if (where := for_learners()) else {}  # without a CPU they would run anywhere
        with DataContext.current(context):
            # Not `range`, whose own tasks would claim CPUs.
            numbers = ray.data.from_items(
                [{"task": task} for task in range(len(tasks))], override_num_blocks=len(tasks)
            )
            return numbers.map_batches(
                functools.partial(_load, tasks=tasks, loader=loader),
                batch_size=None, num_cpus=0, compute=TaskPoolStrategy(max(1, int(self.cpus))), **placed,
            )  # fmt: skip


class _Leg:
    """A pipeline over some requests, and the thread that empties it.

    Attributes:
        requests: at least one.
    """

    def __init__(self, requests: list[Request], source: RayDataSource, loader: Any) -> None:
        self.requests, self._source = requests, source
        self._blocks: queue.Queue[dict[str, np.ndarray] | Exception | None] = queue.Queue(_QUEUED)
        self._ended = threading.Event()
        pipeline = source._pipeline(requests, loader)
        self._thread = threading.Thread(target=self._work, args=(pipeline,), name="demonstrations", daemon=True)
        self._thread.start()

    def _work(self, pipeline: ray.data.Dataset) -> None:
        blocks = iter(pipeline.iter_batches(batch_size=None, batch_format="numpy"))
        try:
            for block in blocks:
                self._put(block)
                if self._ended.is_set():
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put(error)
        finally:
            blocks.close()

    def _put(self, item: dict[str, np.ndarray] | Exception | None) -> None:
        while not self._ended.is_set():
            try:
                self._blocks.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def decisions(self) -> Iterator[Decisions]:
        waiting = iter(self.requests)
        while (block := self._next_block()) is not None:
            if _ERROR in block:
                raise InputError(str(block[_ERROR][0]))
            begins = np.flatnonzero(np.diff(block[_NUMBER], prepend=-1))
            for begin, end in itertools.pairwise([*begins, len(block[_NUMBER])]):
                request = next(waiting)
                if block[_NUMBER][begin] != request.draw.number:
                    raise RuntimeError(f"Ray Data delivered draw {block[_NUMBER][begin]} for {request.draw}")
                # Copied, or one draw that is still walked through would keep the whole block in the object store.
                arrays = {name: block[name][begin:end].copy() for name in _ARRAYS}
                yield Decisions(request, instruction=self._source.loader.instruction(request.draw), **arrays)
        if (missing := next(waiting, None)) is not None:
            raise RuntimeError(f"Ray Data ended before {missing.draw}")

    def _next_block(self) -> dict[str, np.ndarray] | None:
        patience = self._source.patience
        soon = min(_NOTICE, patience)
        try:
            block = self._blocks.get(timeout=soon)
        except queue.Empty:
            place = self._source.loader.mixture.datasets[0].folder
            if soon < patience:
                print(f"no demonstration from {place} in {soon:g} s; waiting for up to {patience:g} s", flush=True)
            try:
                block = self._blocks.get(timeout=max(0.0, patience - soon))
            except queue.Empty:
                raise InputError(
                    f"no demonstration from {place} in {patience:g} s: look whether its store answers the cluster's "
                    "machines and Ray Data's tasks run, then resume"
                ) from None
        if isinstance(block, Exception):
            raise block
        return block

    def close(self) -> None:
        """End the pipeline. Its tasks are not waited for long: without a free CPU they may never begin."""
        self._ended.set()
        self._thread.join(timeout=2)


@functools.lru_cache(maxsize=2)
def _fetch(loader: Any) -> DrawLoader:
    return ray.get(loader)


def _load(batch: dict[str, np.ndarray], tasks: Sequence[Sequence[Request]], loader: Any) -> dict[str, Any]:
    """Runs in Ray's processes: numbers of tasks -> all decisions of their requests, one below the other.

    What is wrong with the demonstrations comes as data, too: an exception would lose its type on the way.
    """
    try:
        loaded = [_fetch(loader)(request) for task in batch["task"] for request in tasks[task]]
    except InputError as error:
        return {_ERROR: [str(error)]}
    columns = {name: np.concatenate([getattr(each, name) for each in loaded]) for name in _ARRAYS}
    numbers = [each.request.draw.number for each in loaded]
    return {_NUMBER: np.repeat(numbers, [len(each.mask) for each in loaded]), **columns}
