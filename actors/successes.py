"""A learner's own successful episodes, for the policy to imitate beside PPO.

Self-imitation learning (Oh et al. 2018, arXiv 1806.05635) with the success of an episode in place of its positive
advantage: from few demonstrations, where most of what is drawn fails, the few episodes that do not are worth more than
one update. They are walked through decision after decision, as demonstrations are: what the policy remembers and thinks
is its own of today, and only what it saw and did is of then. Letters: N streams, C chunk length, A action dimension.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.batch import Witnessed, witnessed
from avavla_ray.learning.fragment import Fragment, Seen
from avavla_ray.learning.gae import valid_steps
from avavla_ray.policy.types import Belief


class Imitation(NamedTuple):
    """The next decision of each of N streams.

    witnessed: what the policy saw, its belief of today, and the chunk (N, C, A) that was drawn then. executed (N, C)
    bool: steps of the chunk that ran. latent_steps: depth to act at. weight: of the loss, up to 1.
    """

    witnessed: Witnessed
    executed: Tensor
    latent_steps: int
    weight: float = 1.0


class _Piece(NamedTuple):
    """Decisions of one episode in their order, copied: fragments are views of Ray's store, which they would fill.

    decision: which of the episode's. fresh: (T,) bool, that begin with the belief of then.
    """

    task: int
    seen: Seen
    duration: np.ndarray
    decision: np.ndarray
    fresh: np.ndarray

    def __len__(self) -> int:
        return len(self.duration)


@dataclass
class _Stream:
    """Decision `at` of `episode` comes next."""

    episode: _Piece
    at: int


class Successes:
    """The newest successful episodes of every task, as one rank has seen them, and streams through them.

    Args:
        limit: decisions that are kept; where there are more, the oldest episode of the task with most of them goes. Of
            episodes under way as many again, the ones that were last heard of: some never end, because their simulator
            died.
        streams: N. deepest: latent steps that the policy may take.
        seed: of the episodes that are drawn, which may differ from rank to rank. depth_seed: of the depths, which must
            not, so that all ranks do the same amount of work.

    Attributes:
        belief: after the decisions that `next` returned last; whoever made them sets it.
    """

    belief: Belief

    def __init__(
        self, limit: int, streams: int, deepest: int, *, seed: Sequence[int], depth_seed: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self._limit, self._deepest, self._device = limit, deepest, device
        self._random, self._depths = np.random.default_rng(seed), np.random.default_rng(depth_seed)
        self._number, self._streams = streams, list[_Stream]()
        self._pending: dict[str, list[_Piece]] = {}
        self._tasks: dict[int, deque[_Piece]] = defaultdict(deque)

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
                self._tasks[pieces[0].task].append(_joined(pieces))
        while sum(map(_decisions, self._pending.values())) > self._limit:
            del self._pending[next(iter(self._pending))]
        while len(self) > self._limit:
            fullest = max(self._tasks, key=lambda task: _decisions(self._tasks[task]))
            self._tasks[fullest].popleft()
            if not self._tasks[fullest]:
                del self._tasks[fullest]

    def restart(self) -> None:
        """Let all streams begin anew: what they remember is of weights that are not."""
        self._streams = []

    def next(self) -> Imitation:
        """The next decision of every stream. One that has come to an episode's end begins another, of any task alike.

        Depths are drawn from 1 to K, where there is a loop, as beside demonstrations. With fewer decisions than streams
        copies of the same few would outweigh all else, so that they weigh less, each as much as it would among many.
        """
        began = self._begin()
        places = [(stream.episode, stream.at) for stream in self._streams]
        seen = Seen(**{f.name: np.stack([getattr(part.seen, f.name)[at] for part, at in places]) for f in fields(Seen)})
        duration = np.array([part.duration[at] for part, at in places])
        decisions = witnessed(seen, self._tensor)
        fresh = self._tensor(began | np.array([part.fresh[at] for part, at in places]))
        belief = decisions.belief if fresh.all() else Belief(
            *(torch.where(fresh.view(-1, *[1] * (then.ndim - 1)), then, now)
              for then, now in zip(decisions.belief, self.belief, strict=True))
        )  # fmt: skip
        for stream in self._streams:
            stream.at += 1
        depth = int(self._depths.integers(min(1, self._deepest), self._deepest, endpoint=True))
        executed = valid_steps(self._tensor(duration), seen.chunk.shape[1])
        return Imitation(decisions._replace(belief=belief), executed, depth, min(1.0, len(self) / self._number))

    def _begin(self) -> np.ndarray:
        """Give a new episode to streams whose own has ended; (N,) bool, which. The first ones begin anywhere, lest
        all are at a beginning, and then at an end, together."""
        if not self._streams:
            self._streams = [_Stream(episode, int(self._random.integers(len(episode)))) for episode in self._drawn()]
            return np.ones(self._number, bool)
        ended = np.array([stream.at == len(stream.episode) for stream in self._streams])
        for row, episode in zip(np.flatnonzero(ended), self._drawn(int(ended.sum())), strict=True):
            self._streams[row] = _Stream(episode, 0)
        return ended

    def _drawn(self, number: int | None = None) -> list[_Piece]:
        tasks = self._random.choice(sorted(self._tasks), self._number if number is None else number)
        return [self._tasks[task][self._random.integers(len(self._tasks[task]))] for task in tasks.tolist()]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _decisions(episodes: Iterable[_Piece]) -> int:
    return sum(map(len, episodes))


def _piece(fragment: Fragment, seen: Seen, rows: np.ndarray) -> _Piece:
    return _taken(int(fragment.task[rows[0]]), seen, fragment.duration, fragment.decision, rows)


def _joined(pieces: list[_Piece]) -> _Piece:
    """They may have come in any order, and some may never."""
    parts = {f.name: np.concatenate([getattr(piece.seen, f.name) for piece in pieces]) for f in fields(Seen)}
    duration, decision = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("duration", "decision")
    )
    return _taken(pieces[0].task, Seen(**parts), duration, decision, np.argsort(decision))


def _taken(task: int, seen: Seen, duration: np.ndarray, decision: np.ndarray, rows: np.ndarray) -> _Piece:
    kept = Seen(**{f.name: getattr(seen, f.name)[rows] for f in fields(Seen)})
    # The first one that there is, what follows a gap, and where the rollout began anew: the next task of a chain.
    begins = np.diff(decision[rows], prepend=-2) != 1
    forgot = ~(kept.hidden.any(axis=tuple(range(1, kept.hidden.ndim))) | kept.history.any(axis=1))
    return _Piece(task, kept, duration[rows], decision[rows], begins | forgot)
