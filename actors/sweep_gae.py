"""PPO runs as trials of Ray Tune, each with a run below the sweep's in MLflow, and the recipe of the best.

OUTPUT/
  settings.json       what the sweep was started with; --resume must agree
  tune/ppo/           Tune's own: state of the sweep, checkpoints of every trial
  results.jsonl       a line a result; what ASHA remembers after its driver was killed
  trials.md           all trials, the best first
  best_recipe.json    for --recipe of ppo_libero and ppo_calvin
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from ray import tune

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.fragment_queue import Lot
from actors.ledger import cut_torn_line, read_ledger
from actors.metrics import EPISODE_WINDOW, flat
from avavla_ray.errors import DiskFull, InputError
from avavla_ray.evaluation.intervals import wilson
from avavla_ray.evaluation.tables import aligned
from avavla_ray.files import append_line
from avavla_ray.storage.names import address_of
from avavla_ray.storage.place import Place
from avavla_ray.tracked_run import Run
from avavla_ray.tracking import noted_run, track
from tune_spaces.gae import METRIC, TIME

EXPERIMENT, ROWS = "ppo", "results.jsonl"
RESTARTS = ("runner_restarts", "server_restarts", "learner_restarts", "simulator_failures")
PATIENCE = 60.0  # seconds between two questions to a tracking store that is away: each takes long
Row = dict[str, Any]


class SweptPPO(AsyncPPO):
    """`AsyncPPO` that reports what a sweep compares, by plain names.

    A result comes after an update, and not before an episode has ended: until then there is no success rate.
    """

    def setup(self, config: AsyncPPOConfig) -> None:
        self._policy_seconds, self._decided = 0.0, 0
        super().setup(config)

    def step(self) -> dict[str, Any]:
        result = super().step()
        while "rollout/success_rate" not in (now := flat(result)):
            result = super().step()
        ended = now["total/episodes"]
        told = {
            METRIC: now["rollout/success_rate"], TIME: int(now["total/env_steps"]), "episodes": int(ended),
            "window": int(min(EPISODE_WINDOW, ended)), "mean_latent_steps": now["rollout/mean_latent_steps"],
            "ms_per_decision": 1e3 * self._policy_seconds / max(1, self._decided),
            "lag": sum(int(name[4:]) * share for name, share in now.items() if name.startswith("lag/")),
            "restarts": int(sum(now.get(f"total/{name}", 0) for name in RESTARTS)),
        }  # fmt: skip
        self._policy_seconds, self._decided = 0.0, 0
        return {**result, **told}

    def _take(self, lot: Lot) -> None:
        super()._take(lot)
        self._policy_seconds += lot.report.policy_seconds
        self._decided += lot.report.decisions


STEPWISE = (METRIC, "mean_latent_steps", "ms_per_decision", TIME, "lag", "restarts", "episodes")


class TrialRuns(tune.Callback):
    """An MLflow run a trial, below the sweep's, and a line a result in a file.

    The file comes first: no tracking server ends a sweep. What it does not take waits in `output` and is sent later;
    where it does not even open a trial's run, that is tried again, and then the trial's lines are logged. Numbers are
    logged by environment steps; parameters too, since PBT changes them.

    Args:
        swept: names of the parameters. tags: of each run.
    """

    latest: ClassVar[TrialRuns | None] = None  # made in this process

    def __init__(
        self, output: Path, uri: str, parent: str, key: str, swept: Sequence[str], tags: Mapping[str, Any]
    ) -> None:
        self._output, self._uri, self._parent, self._key = output, uri, parent, key
        TrialRuns.latest = self
        self._swept, self._tags = tuple(swept), dict(tags)
        self._open: dict[str, tuple[ExitStack, Run]] = {}
        self._again_at = -math.inf  # when to ask a store that was away again
        self._missed: dict[str, list[Row]] = {}  # rows of trials whose run was open before, and is not now

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps this in a file. A run that is open belongs to this process, as does its clock; the address of the
        # store may hold a password.
        return {**self.__dict__, "_open": {}, "_again_at": -math.inf, "_missed": {}, "_uri": ""}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Tune goes on with what is in that file, though folder and store may have moved.
        self.__dict__.update(state)
        if TrialRuns.latest is not None:
            self._output, self._uri = TrialRuns.latest._output, TrialRuns.latest._uri
        TrialRuns.latest = self

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Row, **info: Any) -> None:
        point = {name: trial.config[name] for name in self._swept}
        more = {name: float(value) for name, value in flat(result).items() if name.startswith(("learner/", "rollout/"))}
        told = {name: result[name] for name in (*STEPWISE, "window")}
        row = {"trial": trial.trial_id, **told, "config": point, "more": more}
        append_line(self._output / ROWS, json.dumps(row))
        if trial.trial_id in self._open:
            self._log(trial.trial_id, [row])
        else:
            if noted_run(self._folder(trial.trial_id)) is not None:
                self._missed.setdefault(trial.trial_id, []).append(row)
            if time.monotonic() >= self._again_at:
                self._begin(trial.trial_id)
        print(
            f"trial {trial.trial_id}: {row[TIME]} environment steps, success {row[METRIC]:.2f} over the last "
            f"{row['window']} episodes, {row['mean_latent_steps']:.2f} latent steps",
            flush=True,
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial.trial_id, RuntimeError(f"trial {trial.trial_id} failed"))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in list(self._open):
            self._close(trial)
        known = {trial.trial_id for trial in trials}
        for row in last_rows(self._output / ROWS, known):
            waits = row["trial"] in self._missed or noted_run(self._folder(row["trial"])) is None
            if waits and not self._begin(row["trial"]):
                print("MLflow lacks trials of this sweep: they are logged with --resume when it answers", flush=True)
                break
            self._close(row["trial"])

    def abandon(self, error: BaseException) -> None:
        """The process ends: what is open ends with it."""
        for trial in list(self._open):
            self._close(trial, error)

    def _begin(self, trial: str) -> bool:
        """Open a trial's run and log the rows that it misses: all, where it never was open. False where the store is
        away."""
        fresh = noted_run(self._folder(trial)) is None
        every = [each for each in read_ledger(self._output / ROWS) if each["trial"] == trial]
        rows = every if fresh else self._missed.get(trial, [])
        stack = ExitStack()
        try:
            run = stack.enter_context(
                track(
                    f"trial {trial}", kind="ppo_trial", uri=self._uri, parent=self._parent,
                    run_key=f"{self._key}/{trial}", resume=True, params=every[0]["config"], tags=self._tags,
                    output=self._folder(trial),
                )
            )  # fmt: skip
        except InputError as error:
            if isinstance(error, DiskFull):
                raise
            self._again_at = time.monotonic() + PATIENCE
            print(f"trial {trial} is in {self._output / ROWS} and logged to MLflow later: {error}", flush=True)
            return False
        self._open[trial] = stack, run
        self._missed.pop(trial, None)
        self._log(trial, rows)
        return True

    def _log(self, trial: str, rows: Sequence[Row]) -> None:
        for row in rows:
            hyper = {f"hyper/{name}": float(value) for name, value in row["config"].items()}
            numbers = {name: float(row[name]) for name in STEPWISE}
            self._open[trial][1].log_metrics({**numbers, **hyper, **row.get("more", {})}, step=row[TIME])

    def _folder(self, trial: str) -> Path:
        return self._output / "mlflow" / trial

    def _close(self, trial: str, error: BaseException | None = None) -> None:
        if trial in self._open:
            self._open.pop(trial)[0].__exit__(None if error is None else type(error), error, None)


def processors(config: AsyncPPOConfig) -> float:
    """That one trial reserves."""
    bundles = AsyncPPO.default_resource_request(config.to_dict()).bundles
    return sum(bundle.get("CPU", 0) for bundle in bundles)


def sweep(
    config: AsyncPPOConfig, swept: Mapping[str, Any], first: Mapping[str, Any], scheduler: Any, callback: TrialRuns, *,
    output: Path, trials: int, at_once: int, env_steps: int, save_updates: int | None, seed: int, resume: bool,
) -> tuple[set[str], list[str]]:  # fmt: skip
    """Run all trials, or go on with those of a sweep that was killed: finished ones stay as they are, each other one
    goes on from its last checkpoint.

    Args:
        first: the first trial's point. at_once: trials side by side.
        save_updates: between checkpoints, of which the newest two are kept. None leaves saving to the scheduler, and
            keeps all: PBT may let a trial that waits go on from one that its owner has long left behind.

    Returns:
        The ids of the trials that did not fail, and why the others did. A driver that was killed may have written rows
        of trials that are neither: Tune notes its state every few seconds alone.
    """
    from ray.tune.search.basic_variant import BasicVariantGenerator

    cut_torn_line(output / ROWS)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its boxes are printed at verbosity 0, too
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own ends the trials as if they were done
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    folder, system = _tune_folder(output)
    noted = f"{folder}/{EXPERIMENT}"
    if resume and tune.Tuner.can_restore(noted, storage_filesystem=system):
        tuner = tune.Tuner.restore(noted, trainable=SweptPPO, resume_errored=True, storage_filesystem=system)
    else:
        tuner = tune.Tuner(
            SweptPPO,
            param_space={**config.to_dict(), **swept},
            tune_config=tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=at_once, scheduler=scheduler,
                search_alg=BasicVariantGenerator(points_to_evaluate=[dict(first)], random_state=seed),
            ),
            run_config=tune.RunConfig(
                name=EXPERIMENT, storage_path=folder, storage_filesystem=system, verbose=0, callbacks=[callback],
                stop={TIME: env_steps},
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True) if save_updates is None
                else tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=save_updates, checkpoint_at_end=True),
            ),
        )  # fmt: skip
    try:
        results = list(tuner.fit())
    except BaseException as error:  # Ctrl-C, too, of which Tune tells its callbacks nothing
        if TrialRuns.latest is not None:
            TrialRuns.latest.abandon(error)
        raise
    whole = [result.metrics for result in results if result.error is None and result.metrics]
    failed = [str(result.error) for result in results if result.error is not None]
    return {metrics["trial_id"] for metrics in whole if "trial_id" in metrics}, failed


def _tune_folder(output: Path) -> tuple[str, Any]:
    """Where Tune and the trials, on whatever machine, keep what they go on from: path and, in a store, its file
    system."""
    address = address_of(output / "tune")
    if address is None:
        return str(output.absolute() / "tune"), None
    place = Place.of(address)
    return place.path, place.system


def last_rows(path: Path, trials: Collection[str] | None = None) -> list[Row]:
    """Where each trial stood last, the best first: most environment steps (to a tenth), then success, then fewer
    latent steps. What was stopped early has lost to what went on.

    Args:
        trials: ids of those that count; all when None.
    """
    every = read_ledger(path) if path.exists() else []
    rows = {row["trial"]: row for row in every if trials is None or row["trial"] in trials}
    most = max((row[TIME] for row in rows.values()), default=0)
    return sorted(rows.values(), key=lambda row: (row[TIME] < 0.9 * most, -row[METRIC], row["mean_latent_steps"]))


def trials_table(rows: Sequence[Row]) -> str:
    """As Markdown; success is of the last training episodes, with noise in the actions where there is some."""
    names = list(rows[0]["config"]) if rows else []
    lines = []
    for row in rows:
        low, high = wilson(round(row[METRIC] * row["window"]), row["window"])
        lines.append(
            [
                row["trial"], *(f"{row['config'][name]:.4g}" for name in names), str(row[TIME]),
                f"{row[METRIC]:.1%} ({low:.1%} - {high:.1%})", str(row["window"]), f"{row['mean_latent_steps']:.2f}",
                f"{row['ms_per_decision']:.1f}", f"{row['lag']:.2f}", str(row["restarts"]),
            ]
        )  # fmt: skip
    head = ["trial", *names, "env steps", "success (95 %)", "of last episodes", "latent steps", "ms", "lag", "restarts"]
    return aligned(head, lines)
