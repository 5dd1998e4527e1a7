"""Tests that may be looked at after every episode, for ending early what is hopeless.

What a full evaluation would find is the mean of a finite population: all the planned episodes, one by one in an order
drawn once. Against the claim that this mean is at most m, a gambler bets on every next value; as long as the claim is
true the capital is a supermartingale that starts at 1, and so reaches 1/a with probability at most a, however often
one looks (Ville's inequality). This is the betting test of Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting" (JRSS B 2024, arXiv 2010.09686), for sampling without replacement, with their aGRAPA bets.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from avavla_ray.errors import InputError

BOLDNESS = 0.75  # of the largest bet that can't ruin the gambler


class BettingTest:
    """Of the claim that the mean of a population of values in [0, 1] is at most `mean`.

    Args:
        population: how many values there are. They must come in an order drawn at random, all orders alike.
        error_rate: how often a true claim may be rejected, over all times of looking together.

    Attributes:
        rejected: the claim is, with that error rate; or for certain, where the values so far are too many already.

    Raises:
        InputError: an error rate outside (0, 1), or no population.
    """

    def __init__(self, mean: float, population: int, error_rate: float = 0.05) -> None:
        if not 0 < error_rate < 1:
            raise InputError(f"error rate {error_rate}: give a number between 0 and 1")
        if population < 1:
            raise InputError(f"a test of {population} values: give at least one")
        self.rejected = False
        self._mean, self._population, self._needed = mean, population, math.log(1 / error_rate)
        self._seen, self._total, self._log_capital = 0, 0.0, 0.0
        self._spread = 0.0  # sum of squared distances from the running mean

    def see(self, value: float) -> bool:
        """The next value; returns `rejected`.

        Raises:
            ValueError: a value outside [0, 1], or more values than the population has.
        """
        if not -1e-9 <= value <= 1 + 1e-9:
            raise ValueError(f"value {value} is outside [0, 1]")
        if self._seen >= self._population:
            raise ValueError(f"a population of {self._population} has no more values")
        left = self._population - self._seen
        expected = (self._population * self._mean - self._total) / left  # at most, of the next value
        if 0 < expected < 1:
            self._log_capital += math.log1p(self._bet(expected) * (value - expected))
        before = self._estimate
        self._seen, self._total = self._seen + 1, self._total + value
        self._spread += (value - before) * (value - self._estimate)
        certain = self._total > self._population * self._mean + 1e-9
        self.rejected = self.rejected or certain or self._log_capital >= self._needed
        return self.rejected

    def skip(self) -> None:
        """The next value is not known and never will be: it counts as none of the population."""
        self._population = max(self._seen, self._population - 1)

    @property
    def _estimate(self) -> float:
        """Running mean, begun at 1/2."""
        return (0.5 + self._total) / (1 + self._seen)

    def _bet(self, expected: float) -> float:
        """Share of the capital a unit, from the values before alone (aGRAPA), never against the direction tested."""
        edge = self._estimate - expected
        variance = (0.25 + self._spread) / (1 + self._seen)
        return min(max(0.0, edge / (variance + edge * edge)), BOLDNESS / expected)


class PairedTest:
    """Of the claim that a candidate succeeds at least as often as a rival, over the episodes that the rival has played.

    Episodes are paired by their start (common random numbers), so that what is hard for both tells nothing.

    Args:
        rival: whether it succeeded, by episode: all that are planned.
    """

    def __init__(self, rival: Mapping[Any, bool], error_rate: float = 0.05) -> None:
        self._rival = rival
        self._test = BettingTest(0.5, max(1, len(rival)), error_rate)
        self._gains: list[int] = []

    @property
    def worse(self) -> bool:
        """The claim is rejected."""
        return self._test.rejected

    @property
    def mean_gain(self) -> float:
        """Success of the candidate less that of the rival, over the pairs so far; 0 of none."""
        return sum(self._gains) / len(self._gains) if self._gains else 0.0

    def see(self, episode: Hashable, success: bool) -> bool:
        """The candidate's next episode; returns `worse`. One that the rival has not played tells nothing."""
        if episode in self._rival:
            gain = int(success) - int(self._rival[episode])
            self._gains.append(gain)
            self._test.see((1 - gain) / 2)
        return self.worse

    def skip(self, episode: Hashable) -> None:
        """The candidate's simulator has given this one up."""
        if episode in self._rival:
            self._test.skip()
