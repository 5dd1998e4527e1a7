"""Results reach the disk whether MLflow answers or not, and MLflow gets later what it could not be told."""

import json
import sqlite3
from dataclasses import replace

import pytest

from actors.evaluation_chains import ChainEvaluation
from actors.evaluation_run import EpisodeEvaluation, EvaluationPlan
from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import ChainRecord
from avavla_ray.evaluation.episode import EpisodeRecord
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.tracking import PENDING, find_runs
from tests.support.fake_calvin import FAKE_ROOT, calvin_env_at
from tests.support.policies import some_statistics, stirred_policy, tiny
from tests.support.ports import free_port

EXITS = (ExitSetting(fixed_depth=1), ExitSetting(exit_threshold=0.5))
FILES = {"depth_1.json", "threshold_0.50.json", "table.md"}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Of two settings, to be logged to a server that is away."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    save_checkpoint(tmp_path / "tiny", stirred_policy(tiny()), some_statistics(), stage="bc", provenance={})
    checkpoint = load_checkpoint(tmp_path / "tiny")
    return EvaluationPlan(
        checkpoint, checkpoint.statistics_of(None), EXITS, "BC", run_id="run", uri=f"http://127.0.0.1:{free_port()}",
        tasks=(0,), episodes=1,
    )  # fmt: skip


def evaluated(plan, output):
    """An evaluation whose episodes are all in its ledger; its results are written and logged."""
    evaluation = EpisodeEvaluation(plan, "tabletop", output, "run")
    evaluation.open()
    for setting in plan.exits:
        evaluation._ledger.add(EpisodeRecord(setting.label, 0, 0, True, 9, [1], [2.0], scores=[[0.6]]))
    return evaluation._log.log(evaluation._write({"suite": "tabletop"})[1])


def test_a_server_that_is_away_costs_no_file_and_gets_its_runs_on_resume(plan, tmp_path):
    why = evaluated(plan, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    assert "MLflow has 0 of 2 runs" in why
    assert "--resume" in why
    assert evaluated(replace(plan, uri=f"sqlite:///{tmp_path}/mlflow.db", resume=True), tmp_path / "out") is None
    runs = find_runs(uri=f"sqlite:///{tmp_path}/mlflow.db", kind="evaluation")
    assert {run.data.params["exit_setting"] for run in runs} == {"0.50", "fixed depth 1"}
    assert all(run.data.metrics["success_rate"] == 1 for run in runs)
    with pytest.raises(InputError, match=r"was logged to MLflow at sqlite.*resume it with that"):
        EpisodeEvaluation(replace(plan, resume=True), "tabletop", tmp_path / "out", "run").open()


def test_so_with_chains(plan, tmp_path):
    with calvin_env_at(FAKE_ROOT):
        evaluation = ChainEvaluation(replace(plan, tasks=()), "calvin_d_chains", tmp_path / "out", "run")
    evaluation.open()
    for setting in plan.exits:
        evaluation._ledger.add(ChainRecord(0, ["open_drawer"] * 5, setting=setting.label))
    why = evaluation._log.log(evaluation._write({"suite": "calvin_d"})[1])
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    assert "MLflow has 0 of 2 runs" in why


def test_what_a_store_does_not_take_waits_on_disk_until_it_does(plan, tmp_path):
    """The store is locked by another writer when the evaluation is resumed."""
    store, output = tmp_path / "mlflow.db", tmp_path / "out"
    plan = replace(plan, uri=f"sqlite:///{store}", exits=EXITS[:1])
    assert evaluated(plan, output) is None
    waiting = output / "mlflow" / EXITS[0].label / PENDING
    other = sqlite3.connect(store)
    other.execute("BEGIN EXCLUSIVE")
    assert evaluated(replace(plan, resume=True), output) is None  # the run is known without its store
    ops = [json.loads(line)["op"] for line in waiting.read_text().splitlines()]
    assert {"tags", "metrics", "file", "status"} <= set(ops)
    other.rollback()
    other.close()
    assert evaluated(replace(plan, resume=True), output) is None
    assert not waiting.exists()
    (run,) = find_runs(uri=plan.uri, kind="evaluation")
    assert run.info.status == "FINISHED"
