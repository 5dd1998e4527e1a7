"""How fast training goes, and how much of the time it waits for data."""

from __future__ import annotations

from dataclasses import dataclass

SETTLING = 3  # first steps, in which libraries warm up


@dataclass
class _Sums:
    decisions: int = 0
    waited: float = 0.0
    spent: float = 0.0

    def add(self, decisions: int, waited: float, spent: float) -> None:
        self.decisions += decisions
        self.waited += waited
        self.spent += spent

    def rates(self) -> dict[str, float]:
        spent = max(self.spent, 1e-9)
        return {"decisions_per_s": self.decisions / spent, "data_wait_share": self.waited / spent}


class Meter:
    """Decisions a second and the share of time spent waiting for data, in training steps alone: validation and
    checkpoints don't count."""

    def __init__(self) -> None:
        self._recent, self._total, self._steps = _Sums(), _Sums(), 0

    def add(self, decisions: int, waited: float, spent: float) -> None:
        """Count a step over `decisions` that took `spent` seconds, `waited` of them for its batch."""
        self._recent.add(decisions, waited, spent)
        if self._steps >= SETTLING:
            self._total.add(decisions, waited, spent)
        self._steps += 1

    def recent(self) -> dict[str, float]:
        """ "decisions_per_s" and "data_wait_share" since the last call."""
        rates, self._recent = self._recent.rates(), _Sums()
        return rates

    def total(self) -> dict[str, float]:
        """The same over all steps but the first few."""
        return self._total.rates()
