"""Search space of PPO's credit assignment, and the schedulers that stop or breed its runs.

Swept on real runs: GAE's lambda and the discount, the two penalties of the composite reward, the clip, and how old
fragments may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining

from actors.ledger import read_ledger
from actors.settings import PPOSettings
from avavla_ray.errors import InputError, check_known

METRIC, TIME = "success_rate", "env_steps"
SCHEDULERS = ("asha", "pbt")
REDUCTION = 3  # ASHA: one of so many goes on
PERTURBATIONS = 4  # PBT: how often within a run


def domains() -> dict[str, Any]:
    """Of each parameter, by the name of its field in `PPOSettings`."""
    return {
        "gae_lambda": tune.quniform(0.80, 1.0, 0.01),
        "gamma": tune.quniform(0.95, 0.999, 0.001),
        "lambda_entropy": tune.qloguniform(1e-3, 1e-1, 1e-4),
        "lambda_delta": tune.qloguniform(1e-2, 1.0, 1e-3),
        "clip": tune.quniform(0.1, 0.3, 0.01),
        "max_lag": tune.choice([1, 2, 4, 8]),
    }


# What PBT steps along, to a neighbour at a time: its usual factors of 0.8 and 1.2 would carry a discount out of [0, 1].
LADDERS: dict[str, list[float]] = {
    "gae_lambda": [0.80, 0.85, 0.90, 0.93, 0.95, 0.97, 0.99, 1.0],
    "gamma": [0.95, 0.97, 0.98, 0.99, 0.995, 0.999],
    "lambda_entropy": [0.001, 0.003, 0.01, 0.03, 0.1],
    "lambda_delta": [0.01, 0.03, 0.1, 0.3, 1.0],
    "clip": [0.1, 0.15, 0.2, 0.25, 0.3],
    "max_lag": [1, 2, 4, 8],
}


def space(names: Sequence[str], scheduler: str) -> dict[str, Any]:
    """What trials draw from, by name: for PBT the rungs of LADDERS, else `domains`.

    Raises:
        InputError: no name, or an unknown one.
    """
    every = domains() if scheduler != "pbt" else {name: tune.choice(rungs) for name, rungs in LADDERS.items()}
    if not names:
        raise InputError("nothing to sweep: name parameters with --over")
    for name in names:
        check_known("parameter", name, every)
    return {name: every[name] for name in names}


def in_use(settings: PPOSettings) -> tuple[str, ...]:
    """The parameters that these settings do not switch off."""
    return tuple(name for name in domains() if getattr(settings, name))


def defaults(names: Sequence[str], settings: PPOSettings) -> dict[str, Any]:
    """The point of the space that training has without a sweep: the first trial."""
    return {name: getattr(settings, name) for name in names}


class RememberingASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020) that outlives its driver.

    Tune does not restore schedulers: what trials had reached is read back from `rows`, a file that holds a line for
    every result, before the first trial is added.
    """

    def __init__(self, rows: Path, **options: Any) -> None:
        super().__init__(**options)
        self._rows, self._read = rows, False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """See AsyncHyperBandScheduler."""
        if not self._read:
            self._read = True
            for row in read_ledger(self._rows) if self._rows.exists() else []:
                known: Any = SimpleNamespace(trial_id=row["trial"])
                self._brackets[0].on_result(known, row[TIME], row[METRIC])
        super().on_trial_add(tune_controller, trial)


def scheduler(name: str, env_steps: int, rows: Path, swept: Iterable[str], seed: int) -> Any:
    """ASHA or PBT over runs of so many environment steps.

    ASHA looks first after a ninth of them, then after a third. PBT (Jaderberg et al., 2017) lets the worst quarter go
    on from copies of the best quarter with changed parameters, four times a run. Where fewer trials fit on the cluster
    than there are, it runs them in turns, from checkpoint to checkpoint.

    Raises:
        InputError: an unknown name.
    """
    check_known("scheduler", name, SCHEDULERS)
    if name == "asha":
        return RememberingASHA(
            rows, time_attr=TIME, metric=METRIC, mode="max", max_t=env_steps,
            grace_period=max(1, env_steps // REDUCTION**2), reduction_factor=REDUCTION,
        )  # fmt: skip
    import random

    random.seed(seed)  # which copies it makes; Ray's PBT has no seed of its own
    return PopulationBasedTraining(
        time_attr=TIME, metric=METRIC, mode="max", perturbation_interval=max(1, env_steps // PERTURBATIONS),
        hyperparam_mutations={name: LADDERS[name] for name in swept}, quantile_fraction=0.25,
    )  # fmt: skip
