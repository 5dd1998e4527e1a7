"""Which of two policies, or of two exit settings, succeeds more often: from the same initial states, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.intervals import wilson


@dataclass(frozen=True)
class Paired:
    """Episodes from the same initial states, counted by who succeeded.

    Attributes:
        difference: success rate of A less that of B over the pairs; None of no pair.
        ci95: its 95 % interval (`paired_interval`).
        p_value: of McNemar's exact two-sided test (`exact_mcnemar`) that both succeed equally often.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def pairs(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float | None:
        return (self.only_a - self.only_b) / self.pairs if self.pairs else None

    @property
    def ci95(self) -> tuple[float, float]:
        return paired_interval(self.both, self.only_a, self.only_b, self.neither)

    @property
    def p_value(self) -> float:
        return exact_mcnemar(self.only_a, self.only_b)


def mcnemar(records_a: Iterable[EpisodeRecord], records_b: Iterable[EpisodeRecord]) -> Paired:
    """Compare two exit settings or checkpoints on the initial states that both have finished.

    Args:
        records_a, records_b: of one setting of one checkpoint each. Aborted episodes count for nothing.

    Raises:
        InputError: one of them has two episodes from the same initial state.
    """
    return compare_outcomes(_outcomes(records_a), _outcomes(records_b))


def compare_outcomes(a: Mapping[Hashable, bool], b: Mapping[Hashable, bool]) -> Paired:
    """The same of outcomes by what they are paired by, for instance (suite, task, initial state)."""
    pairs = [(won, b[start]) for start, won in a.items() if start in b]
    return Paired(*(pairs.count(outcome) for outcome in ((True, True), (True, False), (False, True), (False, False))))


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value of McNemar's test (1947) in its exact form: the pairs that differ fall either way like a fair
    coin; 1 when none does."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_interval(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares; (-1, 1) of no pair.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data"
    (Statistics in Medicine 17, 1998), method 10: the two Wilson intervals joined by the correlation of the outcomes,
    with its continuity correction. Unlike the normal approximation it stays inside [-1, 1], and does not shrink to a
    point when no pair differs.
    """
    n = both + only_a + only_b + neither
    if n == 0:
        return -1.0, 1.0
    wins_a, wins_b = both + only_a, both + only_b
    a, b = wins_a / n, wins_b / n
    (low_a, high_a), (low_b, high_b) = wilson(wins_a, n), wilson(wins_b, n)
    agreement: float = both * neither - only_a * only_b
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    margins = wins_a * (n - wins_a) * wins_b * (n - wins_b)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    below = _joined(a - low_a, high_b - b, phi)
    above = _joined(high_a - a, b - low_b, phi)
    return max(-1.0, a - b - below), min(1.0, a - b + above)


def _joined(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _outcomes(records: Iterable[EpisodeRecord]) -> dict[Hashable, bool]:
    outcomes: dict[Hashable, bool] = {}
    for record in records:
        if record.error is not None:
            continue
        start = (record.task, record.initial_state)
        if start in outcomes:
            raise InputError(f"two episodes of task {start[0]}, initial state {start[1]}: pair one exit setting's")
        outcomes[start] = record.success
    return outcomes
