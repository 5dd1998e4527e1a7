"""What a proof is to reach, and whether its rows do. A row is one of rows.py; they are given by their titles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

REACHED, BY_ESTIMATE, MISSED = "reached", "reached by the point estimate only", "missed"

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """Whether a target is reached (REACHED, BY_ESTIMATE, MISSED), and by which numbers."""

    reached: str
    why: str


class Target(Protocol):
    """Something that the rows of a proof reach or miss."""

    @property
    def text(self) -> str:
        """The target in words."""
        ...

    def judge(self, rows: Rows) -> Verdict:
        """Compare; a number that is not known misses."""
        ...


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _percent(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    return f"{row['success_rate']:.1%} ({low:.1%} to {high:.1%})"


_NOT_PLAYED = Verdict(MISSED, "no episode was played to its end")


@dataclass(frozen=True)
class SuccessAtLeast:
    """The row's success rate is at least so much."""

    row: str
    least: float

    @property
    def text(self) -> str:
        return f"{self.row}: success of at least {self.least:.0%}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        row = rows[self.row]
        if row["success_rate"] is None:
            return _NOT_PLAYED
        return Verdict(_level(row["success_rate"], row["ci95"][0], self.least), _percent(row))


@dataclass(frozen=True)
class SuccessBetween:
    """The row's success rate leaves room: neither too little to learn from nor too much to add to."""

    row: str
    least: float
    most: float

    @property
    def text(self) -> str:
        return f"{self.row}: success between {self.least:.0%} and {self.most:.0%}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        row = rows[self.row]
        if row["success_rate"] is None:
            return _NOT_PLAYED
        inside = self.least <= row["success_rate"] <= self.most
        certain = self.least <= row["ci95"][0] and row["ci95"][1] <= self.most
        return Verdict(REACHED if certain else BY_ESTIMATE if inside else MISSED, _percent(row))


@dataclass(frozen=True)
class GainAtLeast:
    """The row succeeds more often than the one that it is compared with, by so much: 0.25 are 25 points."""

    row: str
    than: str
    least: float

    @property
    def text(self) -> str:
        return f"{self.row}: at least {100 * self.least:g} points more success than {self.than}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`; the interval is that of the paired difference."""
        row = rows[self.row]
        if row["difference"] is None:
            return _NOT_PLAYED
        low, high = row["difference_ci95"]
        why = f"{_points(row['difference'])} points ({_points(low)} to {_points(high)})"
        return Verdict(_level(row["difference"], low, self.least), why)


@dataclass(frozen=True)
class IntervalsApart:
    """The worse row's 95 % interval of success ends before the better one's begins."""

    better: str
    worse: str

    @property
    def text(self) -> str:
        return f"{self.better} above {self.worse}, 95 % intervals apart"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        better, worse = rows[self.better], rows[self.worse]
        if better["success_rate"] is None or worse["success_rate"] is None:
            return _NOT_PLAYED
        apart = better["ci95"][0] > worse["ci95"][1]
        return Verdict(REACHED if apart else MISSED, f"{_percent(better)} against {_percent(worse)}")


@dataclass(frozen=True)
class SuccessInside:
    """The row's success rate lies in the other one's 95 % interval, or above it."""

    row: str
    of: str

    @property
    def text(self) -> str:
        return f"{self.row}: success inside the 95 % interval of {self.of}, or above it"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        row, other = rows[self.row], rows[self.of]
        if row["success_rate"] is None or other["success_rate"] is None:
            return _NOT_PLAYED
        inside = row["success_rate"] >= other["ci95"][0]
        return Verdict(REACHED if inside else MISSED, f"{row['success_rate']:.1%} against {_percent(other)}")


@dataclass(frozen=True)
class LatentStepsAtMost:
    """The row takes at most this share of the other one's latent steps."""

    row: str
    of: str
    share: float

    @property
    def text(self) -> str:
        return f"{self.row}: at most {self.share:.0%} of the latent steps of {self.of}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        steps, others = rows[self.row]["mean_latent_steps"], rows[self.of]["mean_latent_steps"]
        if steps is None or others is None:
            return _NOT_PLAYED
        return Verdict(REACHED if steps <= self.share * others else MISSED, f"{steps:.2f} against {others:.2f}")


@dataclass(frozen=True)
class LengthAtLeast:
    """The row's chains have at least this average length."""

    row: str
    least: float

    @property
    def text(self) -> str:
        return f"{self.row}: average length of at least {self.least:g}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`."""
        row = rows[self.row]
        length, (low, high) = row["average_length"], row["average_length_ci95"]
        if length is None:
            return _NOT_PLAYED
        return Verdict(_level(length, low, self.least), f"{length:.2f} ({low:.2f} to {high:.2f})")


@dataclass(frozen=True)
class LongerThan:
    """The row's chains are longer on average than those of the row that it is compared with."""

    row: str
    than: str

    @property
    def text(self) -> str:
        return f"{self.row}: longer chains than {self.than}"

    def judge(self, rows: Rows) -> Verdict:
        """See `Target`; the interval is that of the paired difference."""
        row = rows[self.row]
        if row["difference"] is None:
            return _NOT_PLAYED
        low, high = row["difference_ci95"]
        reached = REACHED if low > 0 else BY_ESTIMATE if row["difference"] > 0 else MISSED
        return Verdict(reached, f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f})")


def _level(estimate: float, low: float, least: float) -> str:
    return REACHED if low >= least else BY_ESTIMATE if estimate >= least else MISSED
