"""The loop that jobs train with and a bare PyTorch loop, each for a few seconds at a time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avavla_ray.demonstrations.windows import Batch
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.cloning_worker import CloningWork, Load, Worker
from avavla_ray.training.engine import EngineSettings
from avavla_ray.training.meter import SETTLING
from avavla_ray.training.objective import CloningObjective, learning_parameters, to_tensors
from avavla_ray.training.stages import PARTS

_SCHEDULED = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class Turn:
    """What a loop did in its turn, without its first few steps.

    Attributes:
        steps: optimizer steps. wall_s: seconds that they took.
        cpu_s: processor seconds of the process meanwhile, of all its threads; main_cpu_s: of the loop's own thread.
        queued_s: in which that thread could have run, and other threads had the processors; NaN where the system does
            not tell (Linux does).
        waited: share of the steps' time spent waiting for batches.
    """

    steps: int
    wall_s: float
    cpu_s: float
    main_cpu_s: float
    queued_s: float
    waited: float = 0.0


class _Clock:
    """Marks the ends of steps."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._marks: list[tuple[float, float, float, float]] = []

    def mark(self) -> bool:
        """Whether it was the last step of the turn."""
        self._marks.append((time.perf_counter(), time.process_time(), time.thread_time(), _queued()))
        settled = len(self._marks) - SETTLING
        return settled > 0 and self._marks[-1][0] - self._marks[SETTLING - 1][0] >= self._seconds

    def turn(self, waited: float = 0.0) -> Turn:
        begin, end = self._marks[SETTLING - 1], self._marks[-1]
        wall, cpu, main, queued = (after - before for before, after in zip(begin, end, strict=True))
        return Turn(len(self._marks) - SETTLING, wall, cpu, main, queued, waited)


def _queued() -> float:
    """Seconds that this thread has spent ready to run, but not running."""
    if not _SCHEDULED.is_file():
        return math.nan
    return 1e-9 * int(_SCHEDULED.read_text().split()[1])


class TimedWorker(Worker):
    """The training process of jobs, for some seconds once its data flow; it keeps nothing."""

    def __init__(self, what: CloningWork, rank: int, world: int, load: Load | None, seconds: float) -> None:
        super().__init__(what, rank, world, load)
        self._clock = _Clock(seconds)
        self._waited = 0.0

    def run(self) -> Turn:
        self._begin()
        self.train()
        return self._clock.turn(self._waited)

    def _agree(self, *numbers: float) -> list[float]:
        # Asked at the end of every step: the share of the budget that is used, and seconds since the last checkpoint.
        return super()._agree(float(self._clock.mark()), *(0.0 for _ in numbers[1:]))

    def _save(self, walk_state: dict[str, Any], speed: dict[str, float], *, last: bool) -> None:
        self._waited = speed["data_wait_share"]


class BareLoop:
    """Plain PyTorch: the same policy, loss, optimizer and clipping, on batches that lie ready in memory."""

    def __init__(self, config: PolicyConfig, batches: list[Batch], seed: int) -> None:
        torch.manual_seed(seed)
        policy = AvaVlaPolicy(config)
        self._parameters = learning_parameters(policy, PARTS["cloning"])
        self._objective = CloningObjective(policy)
        self._batches = [to_tensors(batch) for batch in batches]
        self._belief = policy.initial_belief(len(batches[0]["mask"]))
        engine = EngineSettings()
        self._clip = engine.gradient_clip
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=1e-5, betas=engine.betas, eps=engine.epsilon, weight_decay=0.0, fused=True
        )

    def run(self, seconds: float) -> Turn:
        clock, count = _Clock(seconds), 0
        while True:
            loss, self._belief, _ = self._objective(self._batches[count % len(self._batches)], self._belief)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            count += 1
            if clock.mark():
                return clock.turn()
