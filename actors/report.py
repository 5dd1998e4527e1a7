"""What a runner tells the driver beside its fragments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from actors.watchdog import Outcome
from avavla_ray.simulators.base import EpisodeSummary


@dataclass
class Report:
    """What the driver wants to know of a delivery; small, it travels beside the fragments.

    Attributes:
        version: the oldest weights that decided something in the delivered fragments; the order's where there are none.
        decisions, env_steps, latent_steps: totals of the delivered fragments.
        finished: episodes that ended, each told of once. returns: the sum of task rewards of each of them.
        outcomes: how episodes ended, in order, those that their simulator ended among them.
        quarantined: tasks that this runner leaves out, and why.
        groups_dropped: groups of which fewer than two episodes ended, so that there was nothing to compare.
        failure: why this runner can't go on; the next order raises it.
        leaving: the notice that this machine is about to be taken away, or that the runner is let go. Everything
            unfinished has been handed in, and no order brings anything any more.
        away: the runner holds, and a chunk is still under way.
        seconds: wall time of the order, of which `policy_seconds` in the policy or waiting for its server,
            `simulator_seconds` in simulators or waiting for them, `weights_seconds` loading weights.
        idle_seconds: between the order before and this one, while nobody looked after the simulators.
        timings: seconds since the last report by path, as avavla_ray/timing.py tells; empty unless it is switched on.
        pids: of the simulators' processes.
    """

    version: int
    decisions: int = 0
    env_steps: int = 0
    latent_steps: int = 0
    finished: list[EpisodeSummary] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    quarantined: dict[int, str] = field(default_factory=dict)
    groups_dropped: int = 0
    failure: str | None = None
    leaving: str | None = None
    away: bool = False
    seconds: float = 0.0
    policy_seconds: float = 0.0
    simulator_seconds: float = 0.0
    weights_seconds: float = 0.0
    idle_seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)

    @property
    def failures(self) -> Counter[str]:
        """Simulators that broke and were replaced, by kind."""
        return Counter(outcome.kind for outcome in self.outcomes if outcome.kind is not None)

    @property
    def aborted(self) -> int:
        """Episodes that were under way in them: neither failed nor a success."""
        return sum(outcome.aborted for outcome in self.outcomes)
