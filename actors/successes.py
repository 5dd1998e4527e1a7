"""Decisions of a learner's own successful episodes, for the policy to imitate beside PPO.

Self-imitation learning (Oh et al. 2018, arXiv 1806.05635) with the success of an episode in place of its positive
advantage: from few demonstrations, where most of what is drawn fails, the few episodes that do not are worth more than
one update. Letters: N decisions, K latent steps, C chunk length, U update-action width.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.batch import Witnessed, witnessed
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.learning.gae import valid_steps

PENDING = 256  # episodes under way that a rank remembers at most: some never end, because their simulator died


class Imitation(NamedTuple):
    """One minibatch of N decisions that were part of a success.

    u (N, K, U) and steps (N,): the thinking. executed (N, C) bool: steps of the chunk that ran. weight: of the loss.
    """

    witnessed: Witnessed
    u: Tensor
    steps: Tensor
    executed: Tensor
    weight: float


class _Piece(NamedTuple):
    """Consecutive decisions of one episode, copied: fragments are views of Ray's store, which they would fill."""

    seen: Seen
    u: np.ndarray
    steps: np.ndarray
    duration: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


class Successes:
    """The newest successful episodes of every task, as one rank has seen them.

    Args:
        limit: decisions that are kept; where there are more, the oldest episode of the task with most of them goes.
        seed: of what is drawn.
    """

    def __init__(self, limit: int, *, seed: int) -> None:
        self._limit, self._random = limit, np.random.default_rng(seed)
        self._pending: dict[str, list[_Piece]] = {}
        self._tasks: dict[int, deque[list[_Piece]]] = defaultdict(deque)
        self._task_of: dict[str, int] = {}

    def __len__(self) -> int:
        """Decisions."""
        return sum(self._size(task) for task in self._tasks)

    def see(self, fragments: Iterable[Fragment]) -> dict[str, bool]:
        """Remember what is under way, and return how the episodes that ended have ended: id -> success."""
        ended: dict[str, bool] = {}
        for fragment in fragments:
            if fragment.seen is None:
                raise ValueError("successes are imitated, and the fragments do not say what the policy saw")
            for number, name in enumerate(fragment.episode_ids):
                rows = np.flatnonzero(fragment.episode == number)
                self._pending.setdefault(name, []).append(_piece(fragment, fragment.seen, rows))
                self._task_of[name] = int(fragment.task[rows[0]])
                if bool((fragment.terminated | fragment.truncated)[rows].any()):
                    ended[name] = bool(fragment.terminated[rows].any())
        return ended

    def settle(self, ended: Mapping[str, bool]) -> None:
        """Keep the episodes that succeeded, at whatever rank that was seen, and forget the others."""
        for name, success in ended.items():
            pieces, task = self._pending.pop(name, None), self._task_of.pop(name, -1)
            if success and pieces is not None:
                self._tasks[task].append(pieces)
        while len(self._pending) > PENDING:
            oldest = next(iter(self._pending))
            del self._pending[oldest], self._task_of[oldest]
        while len(self) > self._limit:
            fullest = max(self._tasks, key=self._size)
            self._tasks[fullest].popleft()
            if not self._tasks[fullest]:
                del self._tasks[fullest]

    def draw(self, rows: int, weight: float, *, chunk: int, device: torch.device | str) -> Imitation:
        """Decisions at random, as many of each task that has any.

        Args:
            chunk: C.
        """
        tasks = sorted(self._tasks)
        pieces = {task: [piece for episode in self._tasks[task] for piece in episode] for task in tasks}
        found: list[tuple[_Piece, int]] = []
        for task in self._random.choice(tasks, rows):
            ends = np.cumsum([len(piece) for piece in pieces[task]])
            at = int(self._random.integers(ends[-1]))
            which = int(np.searchsorted(ends, at, side="right"))
            found.append((pieces[task][which], at - int(ends[which])))  # from the piece's end

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, device=device)

        seen = Seen(**{f.name: np.stack([getattr(p.seen, f.name)[at] for p, at in found]) for f in fields(Seen)})
        u, steps, duration = (np.stack([part[at] for part, at in column]) for column in (
            [(p.u, at) for p, at in found], [(p.steps, at) for p, at in found], [(p.duration, at) for p, at in found],
        ))  # fmt: skip
        executed = valid_steps(tensor(duration), chunk)
        return Imitation(witnessed(seen, tensor), tensor(u), tensor(steps), executed, weight)

    def _size(self, task: int) -> int:
        return sum(len(piece) for episode in self._tasks[task] for piece in episode)


def _piece(fragment: Fragment, seen: Seen, rows: np.ndarray) -> _Piece:
    return _Piece(
        Seen(**{f.name: getattr(seen, f.name)[rows] for f in fields(Seen)}),
        fragment.u[rows], fragment.steps[rows], fragment.duration[rows],
    )  # fmt: skip
