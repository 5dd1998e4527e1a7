"""Which demonstrated decisions are learned from, in which order: pure bookkeeping without any data.

Parallel streams walk through episodes decision by decision, so that every decision's belief comes from the real
previous one (arXiv 2511.18960, training on consecutive decisions). The order depends on the seed alone: not on the
number of workers, not on when training was interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from avavla_ray.errors import InputError


class Draw(NamedTuple):
    """One hand-out of an episode to a stream.

    number: counts hand-outs. dataset, episode: which; places in the `lengths` of the schedule. phase: see
    `decision_steps`.
    """

    number: int
    dataset: int
    episode: int
    phase: int


class Visit(NamedTuple):
    """One decision to learn from: the `position`-th of `draw`, made at `step` of its episode; `start` where the belief
    is zero."""

    draw: Draw
    position: int
    step: int
    start: bool


class Request(NamedTuple):
    """A draw whose decisions from `first_position` on will be needed."""

    draw: Draw
    first_position: int


def decision_steps(length: int, stride: int, phase: int) -> range | list[int]:
    """Steps at which decisions are made in an episode of `length` steps.

    The first is always step 0, as in a rollout; the second comes after `phase` steps (1..stride) and the others follow
    at `stride`, so that over many passes every step of an episode is a decision's.
    """
    return [0, *range(phase, length, stride)]


@dataclass
class _Stream:
    """draw: what it walks, made at `steps`. position: index of its next decision. fresh: it has made none yet."""

    draw: Draw
    steps: Sequence[int]
    position: int
    fresh: bool


class _Orders:
    """The endless order of each data set's episodes: pass after pass, each a fresh random order of all of them."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self._sizes, self._seed = sizes, seed
        self._known: dict[int, tuple[int, np.ndarray]] = {}  # of each data set, the pass it is in

    def episode(self, dataset: int, place: int) -> int:
        """The `place`-th episode to be handed out of a data set."""
        turn, index = divmod(place, self._sizes[dataset])
        if self._known.get(dataset, (-1,))[0] != turn:
            # The first data set is drawn as the only one is.
            key = [self._seed, turn] if dataset == 0 else [self._seed, turn, 5, dataset]
            self._known[dataset] = turn, np.random.default_rng(key).permutation(self._sizes[dataset])
        return int(self._known[dataset][1][index])


class DecisionSchedule:
    """Endless walk of `streams` parallel streams over the episodes of one or several data sets.

    Each hand-out is of the data set that is furthest behind its share, and has a random phase. Each stream begins
    somewhere in the middle of its first episode, with a zero belief: otherwise all would start together, and a batch
    would hold the same moment of the task from every stream.
    """

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        streams: int,
        stride: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        """
        Args:
            lengths: environment steps of each episode of each data set. stride: chunk length C, from decision to
                decision.
            weights: shares, up to a factor, of the decisions that are learned from each data set; by default as many
                as it holds, so that all data sets begin their passes together.

        Raises:
            InputError: a data set without episodes, or numbers that make no sense.
        """
        if not lengths or any(not each or min(each) < 1 for each in lengths):
            raise InputError("there is no demonstration to learn from: collect at least one")
        if streams < 1:
            raise InputError(f"{streams} streams: give at least 1")
        if weights is None:
            weights = [_decisions_of_a_pass(each, stride) for each in lengths]
        if len(weights) != len(lengths) or not all(np.isfinite(weight) and weight > 0 for weight in weights):
            raise InputError(f"weights {list(weights)}: give a positive number for each of {len(lengths)} data sets")
        self._lengths, self._stride, self._seed, self._weights = lengths, stride, seed, list(weights)
        self._orders = _Orders([len(each) for each in lengths], seed)
        self._handed = [0] * len(lengths)  # hand-outs of each data set
        self._decisions = [0] * len(lengths)  # decisions in them
        self._streams: list[_Stream] = []
        for number in range(streams):
            draw, steps = self._choose()
            middle = int(np.random.default_rng([seed, 3, number]).integers(len(steps)))
            self._count(draw, len(steps) - middle)
            self._streams.append(_Stream(draw, steps, middle, fresh=True))

    def _choose(self) -> tuple[Draw, Sequence[int]]:
        behind = [done / weight for done, weight in zip(self._decisions, self._weights, strict=True)]
        dataset, number = behind.index(min(behind)), sum(self._handed)
        phase = 1 + int(np.random.default_rng([self._seed, 1, number]).integers(self._stride))
        draw = Draw(number, dataset, self._orders.episode(dataset, self._handed[dataset]), phase)
        return draw, self._steps(draw)

    def _count(self, draw: Draw, decisions: int) -> None:
        self._handed[draw.dataset] += 1
        self._decisions[draw.dataset] += decisions

    def _steps(self, draw: Draw) -> Sequence[int]:
        return decision_steps(self.length(draw), self._stride, draw.phase)

    def length(self, draw: Draw) -> int:
        """Environment steps of a draw's episode."""
        return self._lengths[draw.dataset][draw.episode]

    def advance(self) -> list[Visit]:
        """The next decision of every stream."""
        visits = []
        for stream in self._streams:
            if stream.position == len(stream.steps):
                stream.draw, stream.steps = self._choose()
                self._count(stream.draw, len(stream.steps))
                stream.position, stream.fresh = 0, True
            visits.append(Visit(stream.draw, stream.position, stream.steps[stream.position], stream.fresh))
            stream.position, stream.fresh = stream.position + 1, False
        return visits

    def requests(self, mine: range) -> Iterator[Request]:
        """What the streams `mine` will need from now on, in the order in which they will need it, starting with what
        they are in the middle of. Endless; runs ahead on a copy."""
        return self._copy()._requests(mine)

    def _requests(self, mine: range) -> Iterator[Request]:
        held = dict.fromkeys(mine, -1)
        while True:
            visits = self.advance()
            for stream in mine:
                draw, position, *_ = visits[stream]
                if held[stream] != draw.number:
                    held[stream] = draw.number
                    yield Request(draw, position)

    def _copy(self) -> DecisionSchedule:
        other = copy.copy(self)
        other._orders = copy.deepcopy(self._orders)
        other._handed, other._decisions = self._handed.copy(), self._decisions.copy()
        other._streams = [copy.copy(stream) for stream in self._streams]
        return other

    def state(self) -> dict[str, Any]:
        """Where the walk stands; JSON-ready."""
        return {
            "handed": self._handed.copy(),
            "decisions": self._decisions.copy(),
            "streams": [[*s.draw, s.position, s.fresh] for s in self._streams],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()` of a schedule with the same arguments.

        Raises:
            InputError: it had another number of streams or of data sets.
        """
        for kind, before, now in (
            ("streams", len(state["streams"]), len(self._streams)),
            ("data sets", len(state["handed"]), len(self._lengths)),
        ):
            if before != now:
                raise InputError(f"{now} {kind} cannot continue a walk of {before}: resume with what it began with")
        self._handed, self._decisions = list(state["handed"]), list(state["decisions"])
        self._streams = []
        for number, dataset, episode, phase, position, fresh in state["streams"]:
            draw = Draw(number, dataset, episode, phase)
            self._streams.append(_Stream(draw, self._steps(draw), position, fresh))


def _decisions_of_a_pass(lengths: Sequence[int], stride: int) -> float:
    """Expected over the phases: step 0 is always visited, every other step in one phase of `stride`."""
    return sum(1 + (length - 1) / stride for length in lengths)
