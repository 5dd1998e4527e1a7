"""A tracking store that is away ends no sweep: files come first, and runs are logged when it answers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors import sweep_gae
from actors.sweep_gae import ROWS, STEPWISE, TrialRuns, last_rows
from actors.sweep_report import Report
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import summarise
from avavla_ray.tracked_run import Run, client_of
from avavla_ray.tracking import children_of, track
from tests.support.tracked_sweep import drawn_records


class Store:
    """An SQLite store that can't be opened for a while."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.path}"

    def leave(self) -> None:
        self.path.write_bytes(b"no data base" * 1000)

    def answer(self) -> None:
        self.path.write_bytes(b"")  # in place: a connection to it may be kept
        with track("sweep", kind="sweep", uri=self.uri):
            pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


class DrawnSubject(SimpleNamespace):
    """Whose results are of episodes that were drawn."""

    def result(self, setting: ExitSetting, records: Any, states: Any, provenance: dict[str, Any]) -> dict[str, Any]:
        return summarise(setting, records, {0: "pick it up", 1: "open it"}, label="PPO", suite="drawn")


def test_settings_are_on_the_disk_first_and_logged_when_the_store_answers(tmp_path: Path, store: Store) -> None:
    subject: Any = DrawnSubject(
        name="drawn", label="PPO", tasks=(0, 1), spec=SimpleNamespace(name="drawn"),
        checkpoint=SimpleNamespace(digest="abc"),
    )  # fmt: skip
    output = tmp_path / "sweep"
    report = Report(output, store.uri, Run("parent", "1", store.uri, tmp_path / "pending"), "key", resume=False)
    store.leave()
    settings = ExitSetting(exit_threshold=0.5), ExitSetting(fixed_depth=1)
    for setting in settings:
        report.write(subject, setting, drawn_records(setting, 0.5), range(10), {"seed": 1}, verdict="complete")
        assert json.loads((output / "drawn" / f"{setting.label}.json").read_text())["episodes"] == 20
    with pytest.raises(InputError, match=r"lacks 2 of its settings.*--resume"):
        report.log_rest()

    store.answer()
    report.log_rest()
    report.log_rest()
    runs = children_of("parent", uri=store.uri)
    assert [run.data.params["exit_setting"] for run in runs] == ["0.50", "fixed depth 1"]
    assert {run.data.metrics["episodes"] for run in runs} == {20}
    assert {run.data.tags["verdict"] for run in runs} == {"complete"}


def result(env_steps: int) -> dict[str, Any]:
    return {**dict.fromkeys(STEPWISE, 0.5), "env_steps": env_steps, "window": 20}


def test_rows_of_trials_are_replayed_to_a_store_that_was_away(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = TrialRuns(tmp_path, store.uri, "parent", "key", ("clip",), {})
    trials = [SimpleNamespace(trial_id=name, config={"clip": 0.2}) for name in ("a", "b")]
    store.leave()
    told.on_trial_result(1, trials, trials[0], result(100))
    told.on_trial_result(2, trials, trials[1], result(100))
    told.on_trial_complete(2, trials, trials[1])
    assert len((tmp_path / ROWS).read_text().splitlines()) == 2
    store.answer()
    told.on_trial_result(3, trials, trials[0], result(200))
    assert not children_of("parent", uri=store.uri), "it has just been asked in vain"
    monkeypatch.setattr(sweep_gae.time, "monotonic", lambda: 1e9)
    told.on_trial_result(4, trials, trials[0], result(300))
    told.on_trial_result(5, trials, trials[0], result(400))
    told.on_experiment_end(trials)

    runs = {run.data.tags["run_key"]: run.info for run in children_of("parent", uri=store.uri)}
    assert runs.keys() == {"key/a", "key/b"}
    assert {run.status for run in runs.values()} == {"FINISHED"}
    steps = {
        key: [each.step for each in client_of(store.uri).get_metric_history(run.run_id, "success_rate")]
        for key, run in runs.items()
    }
    assert steps == {"key/a": [100, 200, 300, 400], "key/b": [100]}


def test_trials_that_tune_has_forgotten_are_left_out(tmp_path: Path) -> None:
    """Rows are written at once, and Tune's own state every few seconds: a kill leaves rows of trials that it then
    draws anew under other names."""
    rows = [{"trial": name, **result(100), "success_rate": rate} for name, rate in (("ghost", 0.9), ("known", 0.4))]
    (tmp_path / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["trial"] for row in last_rows(tmp_path / ROWS, {"known"})] == ["known"]
    assert [row["trial"] for row in last_rows(tmp_path / ROWS)] == ["ghost", "known"]
    assert last_rows(tmp_path / "absent", {"known"}) == []


def test_what_tune_keeps_holds_no_password_and_is_gone_on_with_where_folder_and_store_are_now(tmp_path: Path) -> None:
    kept = pickle.dumps(TrialRuns(tmp_path / "then", "http://user:secret@host", "parent", "key", ("gamma",), {}))
    assert b"secret" not in kept
    TrialRuns(tmp_path / "now", "http://user:other@host", "parent", "key", ("gamma",), {})
    again = pickle.loads(kept)
    assert (again._output, again._uri) == (tmp_path / "now", "http://user:other@host")


def test_the_run_of_a_trial_that_fails_is_a_failed_one(tmp_path: Path, store: Store) -> None:
    store.answer()
    told = TrialRuns(tmp_path, store.uri, "parent", "key", ("gamma",), {})
    trials = [SimpleNamespace(trial_id=name, config={"gamma": 0.9}) for name in ("good", "bad")]
    for trial in trials:
        told.on_trial_result(1, trials, trial, result(10))
    told.on_trial_complete(1, trials, trials[0])
    told.on_trial_error(1, trials, trials[1])
    told.on_experiment_end(trials)
    status = {run.info.run_name: run.info.status for run in children_of("parent", uri=store.uri)}
    assert status == {"trial good": "FINISHED", "trial bad": "FAILED"}


def test_rows_that_a_moved_store_missed_while_it_was_away_are_logged_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.answer()
    trial = SimpleNamespace(trial_id="one", config={"gamma": 0.9})
    before = TrialRuns(tmp_path, store.uri, "parent", "key", ("gamma",), {})
    before.on_trial_result(1, [trial], trial, result(10))
    before.on_experiment_end([trial])

    moved = store.path.rename(tmp_path / "moved.db")
    later = TrialRuns(tmp_path, f"sqlite:///{moved}", "parent", "key", ("gamma",), {})
    aside = moved.rename(tmp_path / "away.db")
    for steps in (20, 30):
        later.on_trial_result(2, [trial], trial, result(steps))
    aside.rename(moved)
    monkeypatch.setattr(later, "_again_at", 0.0)
    later.on_trial_result(3, [trial], trial, result(40))
    later.on_experiment_end([trial])
    (run,) = children_of("parent", uri=f"sqlite:///{moved}")
    history = client_of(f"sqlite:///{moved}").get_metric_history(run.info.run_id, "success_rate")
    assert sorted(point.step for point in history) == [10, 20, 30, 40]
