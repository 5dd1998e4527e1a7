"""Searching exit thresholds: Optuna's samplers behind Ray Tune's searcher, and a ledger that a search resumes from.

What a search knows is a line a trial in a file. A search that was killed tells a fresh sampler all of it, which so is
where it was but for its random numbers; the setting that was being played is simply proposed first, and goes on with
the episodes that it has in the arena's ledger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from actors.sweep_arena import UNFINISHED, Rules, Standing, asked
from avavla_ray.errors import InputError
from avavla_ray.evaluation.ledger import RecordLedger
from avavla_ray.files import write_json
from avavla_ray.storage.freeze import APART
from tune_spaces.exit_thresholds import ExitSpace, sampler

TRIALS, PLAYING = "trials.jsonl", "playing.json"
REPEATS = 20  # of settings that are known, before one is drawn at random


class Trials(RecordLedger[Standing]):
    """Settings of a search that have been judged."""

    kind, unit, whole = Standing, "trials", "search"
    advice = (
        "give what it began with, or remove this file to search anew (what has been played is in another and stays), "
        "or choose another --output"
    )

    def key(self, record: Standing) -> Hashable:
        """The setting's label."""
        return record.setting


class SettingSearch(Searcher):
    """Proposes thresholds; under a budget it maximises success, with the cost above the budget as a constraint, and
    without one it looks for the front of success and cost.

    Args:
        arena: asked whether episodes are left. trials: what is known already. count: trials in all.
        first: points to begin with.
    """

    def __init__(
        self, space: ExitSpace, searcher: str, seed: int, rules: Rules, arena: Any, trials: Trials, count: int,
        first: Sequence[dict[str, float]], folder: Path,
    ) -> None:  # fmt: skip
        super().__init__(metric="success", mode="max")
        import optuna

        self._space, self._rules, self._arena, self._trials, self._count = space, rules, arena, trials, count
        directions: Any = ["maximize"] if rules.budget is not None else ["maximize", "minimize"]
        # Resumed, it must not draw again what it has drawn before.
        chosen = sampler(searcher, seed + 1000 * len(trials.records))
        self._study = optuna.create_study(directions=directions, sampler=chosen)
        self._drawn = np.random.default_rng([seed, len(trials.records)])
        self._asked: dict[str, Any] = {}
        self._playing = folder / PLAYING
        for standing in trials.records.values():
            self._study.add_trial(self._told(standing))
        interrupted = json.loads(self._playing.read_text(encoding="utf-8")) if self._playing.exists() else None
        for point in [*([interrupted] if interrupted else []), *first]:
            if set(point) == set(space.names) and not self._known(point):
                self._study.enqueue_trial(point, skip_if_exists=True)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next point, of a setting that is not known; the end of the search where there is none, where there were
        enough, or where no episode is left."""
        if len(self._trials.records) + len(self._asked) >= self._count or asked(self._arena.left.remote()) == 0:
            return Searcher.FINISHED
        for _ in range(REPEATS):
            trial = self._study.ask(self._space.distributions())
            standing = self._trials.records.get(self._label(trial.params))
            if standing is None:
                return self._begin(trial_id, trial)
            self._tell(trial, standing)  # deterministic but for milliseconds: it would do as it did
        for _ in range(100 * REPEATS):
            grid = self._drawn.integers(0, 101, len(self._space.names)) / 100
            point = dict(zip(self._space.names, np.clip(grid, self._space.low, self._space.high).tolist(), strict=True))
            if not self._known(point):
                self._study.enqueue_trial(point)
                return self._begin(trial_id, self._study.ask(self._space.distributions()))
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the sampler, and the ledger."""
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return
        if error or result is None or "standing" not in result:
            self._study.tell(trial, state=_failed())
            return
        standing = reported(result)
        if standing.verdict != UNFINISHED:
            self._trials.add(standing)
            self._playing.unlink(missing_ok=True)
        self._tell(trial, standing)

    def save(self, checkpoint_path: str) -> None:
        """Tune asks for it; the ledger has everything."""
        Path(checkpoint_path).write_text(f"see {self._trials.path}\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """See `save`: a search is resumed by making another one."""

    def _begin(self, trial_id: str, trial: Any) -> dict[str, Any]:
        self._asked[trial_id] = trial
        point = {name: round(value, 2) for name, value in trial.params.items()}
        write_json(self._playing, point)
        return point

    def _label(self, point: dict[str, float]) -> str:
        return self._space.setting(point).label

    def _known(self, point: dict[str, float]) -> bool:
        return self._label(point) in self._trials.records

    def _values(self, standing: Standing) -> list[float]:
        assert standing.success is not None
        assert standing.cost is not None
        return [standing.success] if self._rules.budget is not None else [standing.success, standing.cost]

    def _over(self, standing: Standing) -> dict[str, float]:
        """Constraints: above 0 where the setting costs too much."""
        if self._rules.budget is None or standing.cost is None:
            return {}
        return {"budget": standing.cost - self._rules.budget.limit}

    def _tell(self, trial: Any, standing: Standing) -> None:
        if standing.success is None:
            self._study.tell(trial, state=_failed())
            return
        for name, value in self._over(standing).items():
            trial.set_constraint(name, value)
        self._study.tell(trial, self._values(standing))

    def _told(self, standing: Standing) -> Any:
        """A trial that was finished before."""
        import optuna

        if standing.success is None:
            return optuna.trial.create_trial(state=_failed())
        return optuna.trial.create_trial(
            params=standing.config, distributions=self._space.distributions(), values=self._values(standing),
            constraints=self._over(standing),
        )  # fmt: skip


def _failed() -> Any:
    import optuna

    return optuna.trial.TrialState.FAIL


def play_trial(config: dict[str, float], *, arena: Any, space: ExitSpace, rules: Rules) -> None:
    """A trial of Tune: send its episodes to the arena, report how it stands in the end."""
    standing: Standing = asked(arena.compete.remote(space.setting(config), rules))
    told = {**asdict(standing), "config": dict(config)}
    numbers = {name: told[name] for name in ("success", "cost") if told[name] is not None}
    text = json.dumps(told)  # searchers would get a dict flattened
    # Tune wants its metric in every report; that of a setting whose episodes were all lost is not known.
    tune.report({"success": float("nan"), **numbers, "episodes": standing.episodes, "standing": text})


def reported(result: Mapping[str, Any]) -> Standing:
    """What a trial has reported."""
    return Standing(**json.loads(result["standing"]))


def search(
    space: ExitSpace, searcher: str, *, seed: int, rules: Rules, arena: Any, trials: Trials, count: int,
    first: Sequence[dict[str, float]], folder: Path, callbacks: Sequence[Any] = (),
) -> None:  # fmt: skip
    """Search until `count` settings have been judged, or no episode is left.

    One trial at a time: it has all simulators, and each proposal knows everything before it.

    Raises:
        InputError: what the arena refused, a full disk for instance. RuntimeError: a trial failed.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its boxes are printed at verbosity 0, too
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own ends the trials as if they were done
    algorithm = SettingSearch(space, searcher, seed, rules, arena, trials, count, first, folder)
    trainable: Any = tune.with_resources(
        tune.with_parameters(play_trial, arena=arena, space=space, rules=rules), {"cpu": 0.01}
    )
    own = folder.absolute() / "tune"
    own.mkdir(parents=True, exist_ok=True)
    (own / APART).touch()  # nothing in it matters to a run that is resumed elsewhere
    results = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=algorithm, metric="success", mode="max", num_samples=count, max_concurrent_trials=1
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder.absolute()), verbose=0, callbacks=[*callbacks],
            failure_config=tune.FailureConfig(max_failures=0, fail_fast=True),
        ),
    ).fit()  # fmt: skip
    for result in results:
        if isinstance(refused := getattr(result.error, "cause", None), InputError):
            raise refused from None
        if result.error is not None:
            raise RuntimeError(f"a trial of the search failed: {result.error}")
