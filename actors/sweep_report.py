"""What a sweep of exit settings leaves behind: a result file and an MLflow run a setting, tables, picture, preset."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from actors.sweep_arena import Standing
from actors.sweep_subject import Subject
from avavla_ray.errors import DiskFull, InputError
from avavla_ray.evaluation.budget import Budget
from avavla_ray.evaluation.choice import COLUMNS, prices
from avavla_ray.evaluation.comparison import by_label, over_suites
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting, save_exit_preset
from avavla_ray.evaluation.paired import mcnemar
from avavla_ray.evaluation.plots import plot_success_against_cost
from avavla_ray.evaluation.results import order
from avavla_ray.evaluation.tables import aligned, cell
from avavla_ray.evaluation.threshold_table import Row, markdown, threshold_rows, write_threshold_tables
from avavla_ray.files import write_json, write_text
from avavla_ray.tracked_run import Run, without_password
from avavla_ray.tracking import track
from tune_spaces.exit_thresholds import ExitSpace

PLOT, ADVICE, PRESET = "pareto.png", "recommendation.md", "exit_preset.json"
CURVE_POINTS = 20
NUMBERS = ("success_rate", "mean_latent_steps", "ms_mean", "ms_p50", "ms_p90", "ms_p99", "episodes", "successes",
           "aborted_episodes")  # fmt: skip


class Report:
    """Of one sweep.

    Args:
        parent: MLflow run of the sweep. key: the sweep's --run-id. resume: settings that were logged before are not
            logged as others. What a tracking server does not take waits in `output`; a run that it does not open waits
        in this object, see `log_rest`.
    """

    def __init__(self, output: Path, uri: str, parent: Run, key: str, resume: bool) -> None:
        self._output, self._uri, self._parent, self._key, self._resume = output, uri, parent, key, resume
        self._waiting: list[Callable[[], None]] = []

    def write(
        self, subject: Subject, setting: ExitSetting, records: Sequence[EpisodeRecord], states: Iterable[int],
        described: dict[str, Any], kind: str = "evaluation", **tags: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The result of one setting, as a file and as a run below the sweep's.

        Args:
            kind: "evaluation", or "confirmation" on states that no search has seen. tags: of the run.
        """
        states = set(states)
        result = subject.result(setting, records, states, described)
        folder = self._output / subject.name / ("" if kind == "evaluation" else kind)
        path = folder / f"{setting.label}.json"
        write_json(path, result)
        mine = [each for each in records if each.setting == setting.label and each.initial_state in states]
        log = functools.partial(self._log, subject, setting, mine, result, path, kind, {**described, **tags})
        if self._waiting:  # each try takes long while the store is away
            self._waiting.append(log)
            return result
        try:
            log()
        except _NotOpened as error:
            print(f"{setting.title} is logged at the end of the sweep: {error}", flush=True)
            self._waiting.append(log)
        return result

    def log_rest(self) -> None:
        """Log what the store did not open a run for before.

        Raises:
            InputError: it still does not. All files are written then.
        """
        try:
            while self._waiting:
                self._waiting[0]()
                del self._waiting[0]
        except _NotOpened as error:
            raise InputError(
                f"the sweep is done and its files are in {self._output}, but MLflow at {without_password(self._uri)} "
                f"lacks {len(self._waiting)} of its settings: they are logged with --resume when it answers; {error}"
            ) from error

    def _log(
        self, subject: Subject, setting: ExitSetting, mine: Sequence[EpisodeRecord], result: dict[str, Any],
        path: Path, kind: str, tags: dict[str, Any],
    ) -> None:  # fmt: skip
        opening = track(
            f"{subject.label} {setting.title}", kind=kind, uri=self._uri, parent=self._parent.run_id,
            run_key=f"{self._key}/{subject.name}/{setting.label}", resume=self._resume,
            # The scatter tab of MLflow's compare page opens on the first parameter by name: keep it the threshold's.
            params={
                "exit_setting": setting.title, "suite": subject.spec.name, "tasks": ",".join(map(str, subject.tasks)),
                **({"exit_threshold": setting.exit_threshold} if setting.exit_threshold is not None else {}),
                **({"fixed_depth": setting.fixed_depth} if setting.fixed_depth is not None else {}),
            },
            tags={"checkpoint": subject.checkpoint.digest, "label": subject.label, **tags},
            output=self._output / "mlflow" / subject.name / kind / setting.label,
        )  # fmt: skip
        with ExitStack() as stack:
            try:
                run = stack.enter_context(opening)
            except DiskFull:
                raise
            except InputError as error:
                raise _NotOpened(str(error).splitlines()[0]) from error
            for step, numbers in curve(mine):
                run.log_metrics(numbers, step=step)
            last = int(result["episodes"])
            run.log_metrics({name: result[name] for name in NUMBERS if result[name] is not None}, step=last)
            run.log_metrics({"success_rate_low": result["ci95"][0], "success_rate_high": result["ci95"][1]}, step=last)
            run.log_metrics({"quarantined_tasks": len(result["quarantined_tasks"])}, step=last)
            run.log_file(path)

    def keep(self, path: Path, text: str) -> None:
        """Write a file, and keep a copy with the sweep's run."""
        write_text(path, text)
        self._parent.log_file(path, None if path.parent == self._output else path.parent.name)

    def finish(self, results: Sequence[dict[str, Any]], title: str, budget: Budget | None) -> list[Row]:
        """Tables and picture of all settings that were played to the end; of several suites, their means."""
        results = sorted(results, key=order)
        paths = write_threshold_tables(self._output, results, title)
        drawn = {} if budget is None else {COLUMNS[budget.cost]: budget.limit}
        plot_success_against_cost(self._output / PLOT, over_suites(by_label(results)), title, drawn)
        for path in (*paths, self._output / PLOT):
            self._parent.log_file(path)
        return threshold_rows(results)

    def recommend(
        self, rows: Sequence[Row], best: Row | None, setting: ExitSetting | None, cost: str, rule: str,
        notes: Sequence[str], found: dict[str, Any],
    ) -> None:  # fmt: skip
        """Write the preset of the best row's setting, and why it is that.

        Args:
            rows: of all settings that were played to the end. notes: what else is to be said. found: for the preset.
        """
        lines = [f"# Recommended exit setting: {'none' if best is None else best.title}", "", f"Rule: {rule}.", ""]
        if best is None or best.mean is None or setting is None:
            (self._output / PRESET).unlink(missing_ok=True)  # of another rule, by an earlier call
            lines += ["No setting that was played to the end keeps to it: allow more, or play more settings.", ""]
        else:
            known = {
                "success_rate": best.mean.rate, "ci95": [best.mean.low, best.mean.high],
                **dict(zip(("mean_latent_steps", "ms_mean", "ms_p90"), best.costs, strict=True)), "rule": rule,
            }  # fmt: skip
            save_exit_preset(self._output / PRESET, setting, **known, **found)
            self._parent.log_file(self._output / PRESET)
            lines += [markdown([best]), f"Preset: {PRESET} (`--exit-preset`).", ""]
        lines += [
            f"What success costs along the front of the {len(rows)} settings that were played to the end:", "",
            prices(rows, cost), *(f"- {note}" for note in notes), "",
        ]  # fmt: skip
        self.keep(self._output / ADVICE, "\n".join(lines))


class _NotOpened(Exception):
    """The tracking store did not open a run."""


def curve(records: Sequence[EpisodeRecord]) -> list[tuple[int, dict[str, float]]]:
    """How a setting stood after so many episodes, in the order in which they ended: about CURVE_POINTS of them.

    Each with success_rate, mean_latent_steps, ms_per_decision over the episodes so far, and the sum env_steps.
    """
    whole = [record for record in records if record.error is None]
    stride = max(1, len(whole) // CURVE_POINTS)
    successes, steps, latent, spent, decisions = 0, 0, 0, 0.0, 0
    points: list[tuple[int, dict[str, float]]] = []
    for count, record in enumerate(whole, 1):
        successes, steps = successes + record.success, steps + record.steps
        latent, spent = latent + sum(record.latent_steps), spent + sum(record.milliseconds)
        decisions += len(record.latent_steps)
        if count % stride == 0 or count == len(whole):
            numbers = {"success_rate": successes / count, "env_steps": float(steps)}
            if decisions:
                numbers |= {"mean_latent_steps": latent / decisions, "ms_per_decision": spent / decisions}
            points.append((count, numbers))
    return points


def search_table(standings: Iterable[Standing], space: ExitSpace, cost: str) -> str:
    """All settings of a search, the best first, as Markdown."""
    rows = [
        [space.setting(each.config).title, each.verdict, str(each.episodes), cell(each.success, ".1%"),
         cell(each.cost, ".2f")]
        for each in sorted(standings, key=lambda each: -(each.success or 0.0))
    ]  # fmt: skip
    return aligned(["exit threshold", "verdict", "episodes", "success (estimated if ended early)", cost], rows)


def against(setting: ExitSetting, full: ExitSetting, records: Sequence[EpisodeRecord], where: str) -> str:
    """A setting against full depth from the same initial states, for people."""

    def of(each: ExitSetting) -> list[EpisodeRecord]:
        return [record for record in records if record.setting == each.label]

    paired = mcnemar(of(setting), of(full))
    low, high = paired.ci95
    return (
        f"Against {full.title} {where}, from the same initial states: {100 * (paired.difference or 0):+.1f} points of "
        f"success (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, McNemar p = {paired.p_value:.2g}, "
        f"{paired.pairs} pairs)."
    )
