"""What a runner has that is complete and not delivered yet, and the report that goes with it."""

from __future__ import annotations

from collections.abc import Sequence

from actors.groups import EpisodeGroups, Group
from actors.orders import Order
from actors.report import Report
from actors.rows import Rows
from avavla_ray.learning.fragment import Fragment
from avavla_ray.simulators.base import Simulator
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.timing import take_seconds


class Delivery:
    """Collects fragments and the report of them.

    Args:
        groups: that hold the rows of their episodes; None without groups.
    """

    def __init__(self, groups: EpisodeGroups | None) -> None:
        self.report = Report(-1)
        self.groups = groups
        self._complete: list[Fragment] = []

    @property
    def ready(self) -> bool:
        """A fragment is complete, or an episode has ended: that is told of at once, though its last value may still be
        asked for, or its group be incomplete."""
        return bool(self._complete) or bool(self.report.finished)

    def add(self, rows: Rows, group: Group | None) -> None:
        """These rows are a fragment, or an episode of a group."""
        fragment = rows.fragment()
        if group is not None and self.groups is not None:
            self.groups.ended(group, fragment)
        elif fragment is not None:
            self._complete.append(fragment)

    def take(self, order: Order, simulators: Sequence[Simulator]) -> tuple[list[Fragment], Report]:
        """All of it; the next one is empty."""
        report, fragments = self.report, self._complete
        if self.groups is not None:
            fragments += self.groups.complete()
            report.groups_dropped, self.groups.dropped = self.groups.dropped, 0
        self.report, self._complete = Report(-1), []
        report.version = min((fragment.oldest_version for fragment in fragments), default=order.handle.version)
        report.decisions = sum(map(len, fragments))
        report.env_steps = sum(int(fragment.duration.sum()) for fragment in fragments)
        report.latent_steps = sum(int(fragment.steps.sum()) for fragment in fragments)
        report.timings = take_seconds("runner")
        for simulator in simulators:
            if isinstance(simulator, IsolatedSimulator):
                report.pids += [] if simulator.pid is None else [simulator.pid]
                for path, spent in simulator.take_timings().items():
                    report.timings[path] = report.timings.get(path, 0.0) + spent
        return fragments, report
