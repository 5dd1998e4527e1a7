"""Search space of exit thresholds, in steps of 0.01: one for all, one a latent step, or one a family of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from avavla_ray.errors import InputError, check_known
from avavla_ray.evaluation.exit_setting import ExitSetting, families

BY = ("global", "depth", "family")
SEARCHERS = ("tpe", "gp")
STEP = 0.01
STARTS = 6  # settings drawn at random before a searcher trusts its model


@dataclass(frozen=True)
class ExitSpace:
    """What is searched.

    Attributes:
        by: "global", one threshold; "depth", one for each of the steps 1 to K - 1; "family", one for each of `families`
            (the first verb of a task's instruction).
        max_steps: K. low, high: of every threshold.

    Raises:
        InputError: an unknown `by`, a policy that is never asked whether to leave, or no families.
    """

    by: str
    max_steps: int
    families: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_known("kind of threshold", self.by, BY)
        if self.max_steps < 2:
            raise InputError(
                f"a policy of {self.max_steps} latent steps is never asked whether to leave: nothing to search"
            )
        if self.by == "family" and not self.families:
            raise InputError("thresholds by family: name the tasks' families")
        if not 0 <= self.low < self.high <= 1:
            raise InputError(f"thresholds from {self.low} to {self.high}: give two numbers in [0, 1], in order")

    @classmethod
    def of(cls, by: str, max_steps: int, instructions: Iterable[str]) -> ExitSpace:
        """That of these tasks."""
        return cls(by, max_steps, families(instructions))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        if self.by == "depth":
            return tuple(f"threshold_{step}" for step in range(1, self.max_steps))
        if self.by == "family":
            return tuple(f"threshold_{name}" for name in self.families)
        return ("threshold",)

    def setting(self, values: Mapping[str, float]) -> ExitSetting:
        """What a point of the space means. Tasks of no family of the space get the most careful of its thresholds."""
        thresholds = tuple(round(float(values[name]), 2) for name in self.names)
        if self.by == "depth":
            return ExitSetting(exit_threshold=thresholds)
        if self.by == "family":
            own = tuple(zip(self.families, thresholds, strict=True))
            return ExitSetting(exit_threshold=max(thresholds), families=own)
        return ExitSetting(exit_threshold=thresholds[0])

    def spread(self, threshold: float) -> dict[str, float]:
        """The point that is this one threshold everywhere, moved into the space where it is outside."""
        return dict.fromkeys(self.names, min(max(round(threshold, 2), self.low), self.high))

    def distributions(self) -> dict[str, Any]:
        """As Optuna takes them."""
        from optuna.distributions import FloatDistribution

        return {name: FloatDistribution(self.low, self.high, step=STEP) for name in self.names}


def sampler(searcher: str, seed: int) -> Any:
    """Optuna's sampler of that name; both take constraints and several objectives.

    "tpe": the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), which counts what is being played as
    bad so that settings side by side differ. "gp": a Gaussian process, Matern 5/2, with constrained expected
    (hypervolume) improvement.

    Raises:
        InputError: an unknown name.
    """
    check_known("searcher", searcher, SEARCHERS)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if searcher == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTS)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTS, multivariate=True, constant_liar=True)
