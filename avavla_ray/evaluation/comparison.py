"""Evaluations side by side: those that MLflow holds, what they have in common, and who wins pair by pair."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.paired import compare_outcomes
from avavla_ray.evaluation.results import order, outcomes_of, setting_of
from avavla_ray.evaluation.tables import aligned
from avavla_ray.evaluation.threshold_table import threshold_rows
from avavla_ray.tracked_run import client_of, without_password

# What two results must share to be of the same initial states under the same conditions.
CONDITIONS = ("render", "assets", "assets_digest", "scene_digest", "max_steps")


@dataclass(frozen=True)
class Selection:
    """Which runs to take; an empty field takes all."""

    suites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()

    def takes(self, run: Any) -> bool:
        """Whether it is a finished evaluation of these, not one that a sweep ended early."""
        tags, key = run.data.tags, run.data.tags.get("run_key", "")
        return (
            run.info.status == "FINISHED"
            and tags.get("kind") == "evaluation"
            and "success_rate" in run.data.metrics
            and tags.get("verdict", "complete") == "complete"
            and (not self.suites or run.data.params["suite"] in self.suites)
            and (not self.labels or tags["label"] in self.labels)
            and (not self.run_ids or any(key == own or key.startswith(f"{own}/") for own in self.run_ids))
        )


def newest(runs: Iterable[Any], selection: Selection) -> list[Any]:
    """Of each checkpoint's label, suite and exit setting the newest run that is selected.

    Args:
        runs: MLflow's, newest first.
    """
    chosen: dict[tuple[str, str, str], Any] = {}
    for run in runs:
        if selection.takes(run):
            key = run.data.tags["label"], run.data.params["suite"], run.data.params["exit_setting"]
            chosen.setdefault(key, run)
    return list(chosen.values())


def load_results(uri: str, runs: Sequence[Any]) -> list[dict[str, Any]]:
    """The result file that each run keeps.

    Raises:
        InputError: a run has none, or its store does not give it.
    """
    client, results = client_of(uri), []
    for run in runs:
        name, run_id = run.info.run_name, run.info.run_id
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = [each.path for each in client.list_artifacts(run_id) if each.path.endswith(".json")]
                if len(files) != 1:
                    raise InputError(f"run {name} ({run_id}) keeps {len(files)} result files instead of one")
                path = Path(client.download_artifacts(run_id, files[0], folder))
                results.append(json.loads(path.read_text(encoding="utf-8")))
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"the result of run {name} ({run_id}) can't be had from {without_password(uri)} "
                    f"({type(error).__name__}: {error})"
                ) from error
    return results


def by_label(results: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results of each checkpoint, by rising threshold and depth."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda each: (each["label"], each["suite"], *order(each))):
        groups.setdefault(result["label"], []).append(result)
    return groups


def over_suites(groups: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """What a plot needs of each setting: of one suite its results; of several the means over them, of the settings
    that were played on all."""
    everything = [result for results in groups.values() for result in results]
    if len({result["suite"] for result in everything}) < 2:
        return groups
    settings = {(result["label"], setting_of(result).title): result for result in everything}
    means: dict[str, list[dict[str, Any]]] = {label: [] for label in groups}
    for row in threshold_rows(everything):
        if row.mean is None:
            continue
        own = {name: settings[row.label, row.title].get(name) for name in ("exit_threshold", "fixed_depth", "families")}
        steps, milliseconds, _ = row.costs
        means[row.label].append(
            {
                **own, "families": own["families"] or {}, "success_rate": row.mean.rate,
                "ci95": [row.mean.low, row.mean.high], "mean_latent_steps": steps, "ms_mean": milliseconds,
            }
        )  # fmt: skip
    return means


@dataclass(frozen=True)
class Side:
    """One side of a paired comparison: a checkpoint's label, an exit setting, or both as LABEL:SETTING.

    Attributes:
        setting: label of an exit setting. None leaves it open.
    """

    label: str | None
    setting: str | None

    @staticmethod
    def parse(text: str, groups: dict[str, list[dict[str, Any]]]) -> Side:
        """Read "PPO", "0.55", "depth_5" or "PPO:0.55".

        Raises:
            InputError: neither a label nor a setting of these results.
        """
        settings: dict[str, ExitSetting] = {}
        for results in groups.values():
            for result in results:
                setting = setting_of(result)
                settings |= {setting.label: setting, setting.title: setting}
                if setting.exit_threshold is None:
                    settings[f"K={setting.fixed_depth}"] = setting
                elif isinstance(setting.exit_threshold, float) and not setting.families:
                    settings[f"{setting.exit_threshold:g}"] = setting
        label, colon, name = text.rpartition(":")
        if text in groups:
            return Side(text, None)
        if text in settings:
            return Side(None, settings[text].label)
        if colon and label in groups and name in settings:
            return Side(label, settings[name].label)
        known = ", ".join([*groups, *dict.fromkeys(setting.title for setting in settings.values())])
        raise InputError(f"--pair {text!r}: give a label, an exit setting, or LABEL:SETTING; known: {known}")

    def chosen(self, groups: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The results that are meant, one a suite, by label and setting."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for label, results in groups.items():
            for result in results:
                setting = setting_of(result).label
                if self.label in (None, label) and self.setting in (None, setting):
                    found.setdefault((label, setting), []).append(result)
        return found


def paired_table(groups: dict[str, list[dict[str, Any]]], pair: tuple[str, str]) -> str:
    """Markdown: the two sides on the same initial states, with McNemar's exact test; a row for each checkpoint or
    setting that both sides leave open, and notes on conditions that differ.

    Raises:
        InputError: a side that is unknown, nothing in common, or results of an older version.
    """
    sides = [Side.parse(text, groups) for text in pair]
    head = ["A", "B", "pairs", "A", "B", "only A", "only B", "A - B", "95 % interval", "p (McNemar)"]
    rows, notes = [], []
    for first, results_a in sides[0].chosen(groups).items():
        for second, results_b in sides[1].chosen(groups).items():
            open_labels = sides[0].label is None and sides[1].label is None
            open_settings = sides[0].setting is None and sides[1].setting is None
            if first == second or (open_labels and first[0] != second[0]) or (open_settings and first[1] != second[1]):
                continue
            outcomes = [_outcomes(results_a), _outcomes(results_b)]
            found = compare_outcomes(*outcomes)
            if not found.pairs or found.difference is None:
                continue
            low, high = found.ci95
            rows.append(
                [
                    _name(results_a), _name(results_b), str(found.pairs),
                    f"{(found.both + found.only_a) / found.pairs:.1%}",
                    f"{(found.both + found.only_b) / found.pairs:.1%}",
                    str(found.only_a), str(found.only_b), f"{100 * found.difference:+.1f} points",
                    f"{100 * low:+.1f} to {100 * high:+.1f}", f"{found.p_value:.4f}",
                ]
            )  # fmt: skip
            notes += _differences(results_a, results_b)
    if not rows:
        raise InputError(f"--pair {pair[0]} {pair[1]}: no initial state was played by both")
    return aligned(head, rows) + "".join(f"\nNote: {note}\n" for note in dict.fromkeys(notes))


def _name(results: Sequence[dict[str, Any]]) -> str:
    return f"{results[0]['label']}, {setting_of(results[0]).title}"


def _outcomes(results: Sequence[dict[str, Any]]) -> dict[Hashable, bool]:
    return {start: success for result in results for start, success in outcomes_of(result).items()}


def _differences(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[str]:
    """Conditions under which the two were played and that are not the same."""
    suites = {result["suite"]: result for result in b}
    return [
        f"on {result['suite']} {name} differs: {result[name]} for {_name(a)}, {other[name]} for {_name(b)}"
        for result in a
        if (other := suites.get(result["suite"])) is not None
        for name in CONDITIONS
        if name in result and name in other and result[name] != other[name]
    ]
