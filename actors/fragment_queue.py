"""Fragments between their delivery and the update that learns from them: staleness and back-pressure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from actors.report import Report


@dataclass(frozen=True)
class Lot:
    """What one order brought.

    Attributes:
        fragments: reference of a list of them, owned by the driver, so that it survives the runner that made them.
        runner: which. round: in which round, with `max_lag` 0. node: where the fragments lie.
    """

    fragments: Any
    report: Report
    runner: int = 0
    round: int = 0
    node: str = ""


@dataclass
class Tally:
    """So many lots, and decisions in them."""

    lots: int = 0
    decisions: int = 0

    def add(self, lots: list[Lot]) -> None:
        self.lots += len(lots)
        self.decisions += sum(lot.report.decisions for lot in lots)


class FragmentQueue:
    """Lots in the order in which they came; the oldest are learned from first.

    With `max_lag` 0 it is synchronous instead: an update learns from all that whole rounds have brought, sorted by
    round and runner, so that it does not depend on which runner was faster.

    Args:
        update_decisions: that an update waits for. ranks: learners, none of which may go without a lot.
        max_lag: lots with a decision of weights more than so many versions old are dropped.
        limit: decisions from which on the queue is full; at least those that `enough` asks for.
        behind: decisions that wait on when an update takes the oldest, so that these are older than they need be.

    Attributes:
        used, dropped: what was taken for updates, and what was too old or lost, since this queue was made.
    """

    def __init__(self, update_decisions: int, *, ranks: int = 1, max_lag: int, limit: int, behind: int = 0) -> None:
        if limit < update_decisions + behind:
            raise ValueError(f"a queue of {limit} decisions never holds the {update_decisions + behind} of an update")
        self._update_decisions, self._ranks, self._max_lag, self._limit = update_decisions, ranks, max_lag, limit
        self._behind = behind
        self._lots: list[Lot] = []
        self._lags: Counter[int] = Counter()
        self.used, self.dropped = Tally(), Tally()

    def __len__(self) -> int:
        """Lots that wait."""
        return len(self._lots)

    @property
    def lots(self) -> tuple[Lot, ...]:
        """Those that wait."""
        return tuple(self._lots)

    @property
    def decisions(self) -> int:
        """That wait."""
        return sum(lot.report.decisions for lot in self._lots)

    @property
    def enough(self) -> bool:
        """An update can be made of what waits."""
        return len(self._lots) >= self._ranks and self.decisions >= self._update_decisions + self._behind

    @property
    def full(self) -> bool:
        """The learner is so far behind that more fragments would only grow old."""
        return self.enough and self.decisions >= self._limit

    def put(self, lot: Lot) -> None:
        """Add a lot; one without decisions (every simulator failed at its first chunk) is nothing to learn from."""
        if lot.report.decisions:
            self._lots.append(lot)

    def drop_old(self, version: int, oldest_valid: int = 0) -> list[Lot]:
        """Remove the lots that are too old for an update of the weights of `version`, and return them.

        Args:
            oldest_valid: what older weights made is dropped in any case.
        """
        oldest = max(oldest_valid, version - self._max_lag)
        return self._drop([lot for lot in self._lots if lot.report.version < oldest])

    def drop_lost(self, nodes: set[str]) -> list[Lot]:
        """Remove the lots that lie on none of these nodes, and return them."""
        return self._drop([lot for lot in self._lots if lot.node not in nodes])

    def moved(self, node: str, to: str) -> None:
        """What lay on `node` lies on another one, too, which is not about to go."""
        self._lots = [replace(lot, node=to) if lot.node == node else lot for lot in self._lots]

    def take(self, version: int) -> list[Lot]:
        """The lots of the next update, of the weights of `version`; none while there are too few."""
        if not self.enough:
            return []
        if self._max_lag == 0:
            taken, self._lots = sorted(self._lots, key=lambda lot: (lot.round, lot.runner)), []
        else:
            count, decisions = 0, 0
            while count < self._ranks or decisions < self._update_decisions:
                decisions += self._lots[count].report.decisions
                count += 1
            taken, self._lots = self._lots[:count], self._lots[count:]
        self.used.add(taken)
        self._lags = Counter()
        for lot in taken:
            self._lags[version - lot.report.version] += lot.report.decisions
        return taken

    def lags(self) -> dict[int, int]:
        """Decisions of the last update by how many versions old their weights were, ascending.

        A lot counts as its oldest decision, by which it would have been dropped.
        """
        return dict(sorted(self._lags.items()))

    def _drop(self, lots: list[Lot]) -> list[Lot]:
        dropped = {id(lot) for lot in lots}
        self._lots = [lot for lot in self._lots if id(lot) not in dropped]
        self.dropped.add(lots)
        return lots

    def clear(self) -> None:
        """Forget what waits; it counts as neither used nor dropped."""
        self._lots = []
