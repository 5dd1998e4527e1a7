"""What a runner tells the driver beside its fragments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from actors.watchdog import Outcome
from avavla_ray.simulators.base import EpisodeSummary


@dataclass
class Report:
    """What the driver wants to know of a call to `Rollout.collect`; small, it travels beside the fragments.

    Attributes:
        version: of the weights that decided. decisions, env_steps, latent_steps: totals.
        finished: episodes that ended. returns: the sum of task rewards of each of them.
        outcomes: how episodes ended, in order, those that their simulator ended among them.
        quarantined: tasks that this runner leaves out, and why.
        failure: why this runner can't go on; the next call raises it.
        seconds: wall time, of which `policy_seconds` in the policy and `simulator_seconds` in simulators.
    """

    version: int
    decisions: int = 0
    env_steps: int = 0
    latent_steps: int = 0
    finished: list[EpisodeSummary] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    quarantined: dict[int, str] = field(default_factory=dict)
    failure: str | None = None
    seconds: float = 0.0
    policy_seconds: float = 0.0
    simulator_seconds: float = 0.0

    @property
    def failures(self) -> Counter[str]:
        """Simulators that broke and were replaced, by kind."""
        return Counter(outcome.kind for outcome in self.outcomes if outcome.kind is not None)

    @property
    def aborted(self) -> int:
        """Episodes that were under way in them: neither failed nor a success."""
        return sum(outcome.aborted for outcome in self.outcomes)
