"""What thinking costs, at most how much of it is wanted, and when a setting need not be played to the end.

The mean cost of a setting is over all decisions, as results give it (evaluation/results.py). The tests want episodes in
random order: see evaluation/sequential.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.sequential import BettingTest, PairedTest

STEPS, MILLISECONDS = "latent steps", "milliseconds"
COSTS = (STEPS, MILLISECONDS)
# A decision that takes longer than so many times the budget counts as that: tests need a bound. It can't make a setting
# look dearer than it is.
LONGEST_WAIT = 4.0

Key = tuple[int, int]  # task and initial state


@dataclass(frozen=True)
class Budget:
    """At most `limit` of `cost` a decision, on average.

    Raises:
        InputError: an unknown cost, or a limit that is not above 0.
    """

    cost: str
    limit: float

    def __post_init__(self) -> None:
        check_known("cost", self.cost, COSTS)
        if not self.limit > 0:
            raise InputError(f"a budget of {self.limit} {self.cost} a decision: give more than 0")

    def __str__(self) -> str:
        return f"at most {self.limit:g} {self.cost} a decision"


def costs_of(record: EpisodeRecord, cost: str) -> Sequence[float]:
    """Of an episode's decisions."""
    return record.latent_steps if cost == STEPS else record.milliseconds


def mean_cost(records: Iterable[EpisodeRecord], cost: str) -> float | None:
    """Over all decisions; None of none."""
    spent = [value for record in records for value in costs_of(record, cost)]
    return float(np.mean(spent)) if spent else None


class CostTest:
    """Of the claim that all planned episodes together cost at most `limit` a decision.

    Args:
        dearest: what a decision can cost; more counts as that. longest: decisions that an episode can have.
    """

    def __init__(
        self, cost: str, limit: float, *, dearest: float, longest: int, population: int, error_rate: float = 0.05
    ) -> None:
        self._cost, self._limit, self._dearest, self._longest = cost, limit, dearest, longest
        self._test = BettingTest(limit / dearest, population, error_rate) if limit < dearest else None

    @property
    def exceeded(self) -> bool:
        """The claim is rejected."""
        return self._test is not None and self._test.rejected

    def see(self, record: EpisodeRecord) -> bool:
        """The next episode; returns `exceeded`."""
        if self._test is not None:
            spent = [min(value, self._dearest) for value in costs_of(record, self._cost)]
            excess = sum(spent) - self._limit * len(spent)  # its mean over episodes is above 0 where the claim is wrong
            self._test.see((excess / self._longest + self._limit) / self._dearest)
        return self.exceeded

    def skip(self) -> None:
        """The next episode is not known and never will be."""
        if self._test is not None:
            self._test.skip()


@dataclass(frozen=True)
class Rival:
    """A setting that has been played to the end: successes by episode, mean cost a decision."""

    outcomes: Mapping[Key, bool]
    cost: float

    @property
    def success_rate(self) -> float:
        return float(np.mean(list(self.outcomes.values()))) if self.outcomes else 0.0


class Judge:
    """Watches one setting's episodes, in the planned order, and says when the rest need not be played.

    Under a budget, as soon as it is over that, or worse than the best setting within it. Without one, as soon as one of
    the rivals both succeeds more often and costs less. A setting of which none of this is true is ended with
    probability at most `error_rate`, over all times of looking together: each of the claims that one alone of which
    would end it (under a budget that, and the rival; without one each rival) has its share of that.

    Args:
        planned: episodes of a full evaluation, in random order.
        dearest, longest: see `CostTest`.
        rivals: under a budget at most one, the best within it.

    Attributes:
        verdict: why the rest need not be played: "over budget", "worse" or "dominated"; None as long as it must be.
    """

    def __init__(
        self, planned: Sequence[Key], cost: str, *, dearest: float, longest: int, budget: Budget | None = None,
        rivals: Sequence[Rival] = (), error_rate: float = 0.05,
    ) -> None:  # fmt: skip
        if budget is not None and len(rivals) > 1:
            raise ValueError("under a budget there is one rival: the best setting within it")
        self.verdict: str | None = None
        share = error_rate / max(1, len(rivals) + (budget is not None))

        def costs(limit: float) -> CostTest:
            return CostTest(
                cost, limit, dearest=dearest, longest=longest, population=max(1, len(planned)), error_rate=share
            )

        self._budget = None if budget is None else costs(budget.limit)
        self._pairs = [PairedTest(rival.outcomes, share) for rival in rivals]
        self._dearer = [costs(rival.cost) for rival in rivals] if budget is None else []
        self._rivals = list(rivals)

    def see(self, record: EpisodeRecord) -> str | None:
        """The next episode in order; returns `verdict`."""
        key = (record.task, record.initial_state)
        tests = [*self._dearer, *([] if self._budget is None else [self._budget])]
        if record.error is not None:
            for test in tests:
                test.skip()
            for pair in self._pairs:
                pair.skip(key)
            return self.verdict
        for test in tests:
            test.see(record)
        for pair in self._pairs:
            pair.see(key, record.success)
        if self.verdict is None:
            self.verdict = self._judge()
        return self.verdict

    def _judge(self) -> str | None:
        if self._budget is not None:
            over, worse = self._budget.exceeded, any(pair.worse for pair in self._pairs)
            return "over budget" if over else "worse" if worse else None
        both = zip(self._pairs, self._dearer, strict=True)
        return "dominated" if any(pair.worse and cost.exceeded for pair, cost in both) else None

    def estimate(self, records: Sequence[EpisodeRecord]) -> float | None:
        """Success rate that all planned episodes would have, from those that were seen.

        Of a setting that was ended early, that of the rival it lost to and the mean paired difference: what both find
        hard or easy cancels out.
        """
        whole = [record.success for record in records if record.error is None]
        if not whole:
            return None
        lost = [(pair, rival) for pair, rival in zip(self._pairs, self._rivals, strict=True) if pair.worse]
        if self.verdict in (None, "over budget") or not lost:
            return float(np.mean(whole))
        pair, rival = lost[0]
        return float(np.clip(rival.success_rate + pair.mean_gain, 0.0, 1.0))


def episode_order(tasks: Sequence[int], states: Sequence[int], seed: int) -> list[Key]:
    """All episodes in random order, the same for every setting: what the tests of evaluation/sequential.py ask for."""
    every = [(task, state) for task in tasks for state in states]
    return [every[index] for index in np.random.default_rng(seed).permutation(len(every))]
