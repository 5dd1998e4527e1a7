"""Which demonstrated decisions are learned from, in which order: pure bookkeeping without any data.

Parallel streams walk through episodes decision by decision, so that every decision's belief comes from the real
previous one (arXiv 2511.18960, training on consecutive decisions). The order depends on the seed alone: not on the
number of workers, not on when training was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from avavla_ray.errors import InputError


class Visit(NamedTuple):
    """One decision to learn from: `step` of `episode`; `start` where the belief is zero."""

    episode: int
    step: int
    start: bool


def decision_steps(length: int, stride: int, phase: int) -> range | list[int]:
    """Steps at which decisions are made in an episode of `length` steps.

    The first is always step 0, as in a rollout; the second comes after `phase` steps (1..stride) and the others follow
    at `stride`, so that over many passes every step of an episode is a decision's.
    """
    return [0, *range(phase, length, stride)]


@dataclass
class _Stream:
    """draw: which hand-out it walks. position: index of its next decision. fresh: it has made none yet."""

    draw: int
    position: int
    fresh: bool


class DecisionSchedule:
    """Endless walk of `streams` parallel streams over episodes.

    Episodes are handed out in a fresh random order per pass, each with a random phase. Each stream begins somewhere in
    the middle of its first episode, with a zero belief: otherwise all would start together, and a batch would hold the
    same moment of the task from every stream.
    """

    def __init__(self, lengths: Sequence[int], streams: int, stride: int, seed: int) -> None:
        """
        Args:
            lengths: environment steps of each episode. stride: chunk length C, from decision to decision.
        """
        if not lengths or min(lengths) < 1:
            raise InputError("there is no demonstration to learn from: collect at least one")
        if streams < 1:
            raise InputError(f"{streams} streams: give at least 1")
        self._lengths, self._stride, self._seed = list(lengths), stride, seed
        self._orders: dict[int, np.ndarray] = {}
        self._next_draw = streams
        self._streams = []
        for draw in range(streams):
            _, steps = self.steps_of(draw)
            middle = int(np.random.default_rng([seed, 3, draw]).integers(len(steps)))
            self._streams.append(_Stream(draw, middle, fresh=True))

    def _episode(self, draw: int) -> int:
        turn, place = divmod(draw, len(self._lengths))
        if turn not in self._orders:
            self._orders = {key: value for key, value in self._orders.items() if key >= turn - 1}
            self._orders[turn] = np.random.default_rng([self._seed, turn]).permutation(len(self._lengths))
        return int(self._orders[turn][place])

    def steps_of(self, draw: int) -> tuple[int, Sequence[int]]:
        """Episode of the `draw`-th hand-out, and all its decision steps."""
        episode = self._episode(draw)
        phase = 1 + int(np.random.default_rng([self._seed, 1, draw]).integers(self._stride))
        return episode, decision_steps(self._lengths[episode], self._stride, phase)

    def advance(self) -> list[Visit]:
        """The next decision of every stream."""
        visits = []
        for stream in self._streams:
            episode, steps = self.steps_of(stream.draw)
            if stream.position == len(steps):
                stream.draw, stream.position, stream.fresh = self._next_draw, 0, True
                self._next_draw += 1
                episode, steps = self.steps_of(stream.draw)
            visits.append(Visit(episode, steps[stream.position], stream.fresh))
            stream.position, stream.fresh = stream.position + 1, False
        return visits

    def state(self) -> dict[str, Any]:
        """Where the walk stands; JSON-ready."""
        return {"next_draw": self._next_draw, "streams": [[s.draw, s.position, s.fresh] for s in self._streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()` of a schedule with the same arguments."""
        if len(state["streams"]) != len(self._streams):
            raise InputError(f"{len(self._streams)} streams cannot continue a walk of {len(state['streams'])}")
        self._next_draw = state["next_draw"]
        self._streams = [_Stream(*values) for values in state["streams"]]
