"""Decisions of a learner's own successful episodes, for the policy to imitate beside PPO.

Self-imitation learning (Oh et al. 2018, arXiv 1806.05635) with the success of an episode in place of its positive
advantage: from few demonstrations, where most of what is drawn fails, the few episodes that do not are worth more than
one update. Letters: N decisions, K latent steps, C chunk length, U update-action width.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.batch import Witnessed, witnessed
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.learning.gae import valid_steps


class Imitation(NamedTuple):
    """One minibatch of N decisions that were part of a success.

    u (N, K, U) and steps (N,): the thinking. executed (N, C) bool: steps of the chunk that ran.
    """

    witnessed: Witnessed
    u: Tensor
    steps: Tensor
    executed: Tensor


class _Piece(NamedTuple):
    """Consecutive decisions of one episode, copied: fragments are views of Ray's store, which they would fill."""

    task: int
    seen: Seen
    u: np.ndarray
    steps: np.ndarray
    duration: np.ndarray


_Episode = list[_Piece]


class Successes:
    """The newest successful episodes of every task, as one rank has seen them.

    Args:
        limit: decisions that are kept; where there are more, the oldest episode of the task with most of them goes. Of
            episodes under way as many again, the ones that were last heard of: some never end, because their simulator
            died.
        seed: of what is drawn.
    """

    def __init__(self, limit: int, *, seed: int | Sequence[int]) -> None:
        self._limit, self._random = limit, np.random.default_rng(seed)
        self._pending: dict[str, _Episode] = {}
        self._tasks: dict[int, deque[_Episode]] = defaultdict(deque)

    def __len__(self) -> int:
        """Decisions."""
        return sum(map(_decisions, self._tasks.values()))

    def see(self, fragments: Iterable[Fragment]) -> dict[str, bool]:
        """Remember what is under way, and return how the episodes that ended have ended: id -> success."""
        ended: dict[str, bool] = {}
        for fragment in fragments:
            if fragment.seen is None:
                raise ValueError("successes are imitated, and the fragments do not say what the policy saw")
            for number, name in enumerate(fragment.episode_ids):
                rows = np.flatnonzero(fragment.episode == number)
                if len(rows):  # an only decision may have been left out, because nobody knows what followed
                    self._pending[name] = [*self._pending.pop(name, []), _piece(fragment, fragment.seen, rows)]
            ended |= {summary.episode_id: summary.success for summary in fragment.finished}
        return ended

    def settle(self, ended: Mapping[str, bool]) -> None:
        """Keep the episodes that succeeded, at whatever rank that was seen, and forget the others."""
        for name, success in ended.items():
            pieces = self._pending.pop(name, None)
            if success and pieces is not None:
                self._tasks[pieces[0].task].append(pieces)
        while _decisions(self._pending.values()) > self._limit:
            del self._pending[next(iter(self._pending))]
        while len(self) > self._limit:
            fullest = max(self._tasks, key=lambda task: _decisions(self._tasks[task]))
            self._tasks[fullest].popleft()
            if not self._tasks[fullest]:
                del self._tasks[fullest]

    def draw(self, rows: int, *, device: torch.device | str) -> Imitation:
        """Decisions at random, as many of each task that has any."""
        found: list[tuple[_Piece, int]] = []
        chosen, counts = np.unique(self._random.choice(sorted(self._tasks), rows), return_counts=True)
        for task, count in zip(chosen.tolist(), counts.tolist(), strict=True):
            pieces = [piece for episode in self._tasks[task] for piece in episode]
            ends = np.cumsum([len(piece.steps) for piece in pieces])
            for at in self._random.integers(ends[-1], size=count):
                which = int(np.searchsorted(ends, at, side="right"))
                found.append((pieces[which], int(at - ends[which])))  # from the piece's end

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, device=device)

        seen = Seen(**{f.name: np.stack([getattr(p.seen, f.name)[at] for p, at in found]) for f in fields(Seen)})
        u, steps, duration = (
            tensor(np.stack([getattr(p, name)[at] for p, at in found])) for name in ("u", "steps", "duration")
        )
        return Imitation(witnessed(seen, tensor), u, steps, valid_steps(duration, seen.chunk.shape[1]))


def _decisions(episodes: Iterable[_Episode]) -> int:
    return sum(len(piece.steps) for episode in episodes for piece in episode)


def _piece(fragment: Fragment, seen: Seen, rows: np.ndarray) -> _Piece:
    return _Piece(
        int(fragment.task[rows[0]]), Seen(**{f.name: getattr(seen, f.name)[rows] for f in fields(Seen)}),
        fragment.u[rows], fragment.steps[rows], fragment.duration[rows],
    )  # fmt: skip
