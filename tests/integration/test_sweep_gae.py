"""Sweeps over real PPO runs: runs below the sweep's, a recipe that training takes, and a killed sweep that goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from actors import sweep_gae
from actors.settings import recipe
from actors.sweep_gae import STEPWISE
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.tracked_run import client_of
from avavla_ray.tracking import children_of, find_runs
from jobs.sweep_gae import Settings, main
from tests.support.drawn_ppo import DrawnPPO
from tests.support.point_simulator import point_statistics
from tests.support.policies import responsive_policy

ROOT = Path(__file__).resolve().parents[2]
SUITE = "tests.support.point_simulator:PointSimulator"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "checkpoint"
    save_checkpoint(path, responsive_policy(max_steps=2), point_statistics(), stage="bc", provenance={})
    return path


@pytest.fixture
def settings(checkpoint: Path, tmp_path: Path) -> Settings:
    return Settings(
        checkpoint=checkpoint, suite=SUITE, recipe="tiny", train_gate=False, trials=2, env_steps=600, num_runners=1,
        over=("gae_lambda", "clip", "max_lag"), isolate=False, output=tmp_path / "sweep", save_updates=1,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip


@pytest.mark.long
def test_trials_are_runs_below_the_sweep_and_the_best_is_a_recipe(ray_cluster: object, settings: Settings) -> None:
    main(settings)
    (parent,) = find_runs(uri=settings.tracking_uri, kind="sweep")
    children = children_of(parent.info.run_id, uri=settings.tracking_uri)
    assert [run.info.status for run in children] == ["FINISHED"] * 2
    assert set(STEPWISE) <= set(children[0].data.metrics)
    history = client_of(str(settings.tracking_uri)).get_metric_history(children[0].info.run_id, "success_rate")
    steps = [each.step for each in history]
    assert len(steps) >= 2
    assert steps == sorted(steps)
    first = next(run for run in children if run.data.params["gae_lambda"] == "0.95")
    assert (first.data.params["clip"], first.data.params["max_lag"]) == ("0.2", "4"), "the recipe's own point"

    written = settings.output / "best_recipe.json"
    chosen, found = recipe(str(written)), json.loads(written.read_text())["found"]
    assert chosen.update_decisions == 16, "the rest of the recipe comes along"
    params = {run.data.params["gae_lambda"]: run for run in children}
    assert f"{chosen.gae_lambda:g}" in {f"{float(value):g}" for value in params}
    assert 0 <= found["success_rate"] <= 1
    assert found["env_steps"] >= 600
    assert (settings.output / "trials.md").read_text().count("\n") == 4


def test_what_can_not_be_is_refused_before_anything_starts(settings: Settings) -> None:
    for changes, message in (
        ({"trials": 0}, "--trials 0"),
        ({"scheduler": "pbt"}, "at least 4"),
        ({"over": ("gae_lamda",)}, "did you mean 'gae_lambda'"),
        ({"recipe": "papre"}, "did you mean 'paper'"),
        ({"recipe": "absent.json"}, "can't be read"),
        ({"suite": "libero_objekt"}, "did you mean 'libero_object'"),
        ({"resume": True}, "holds no run to resume"),
        ({"demos": "s3://key:secret@lab/demos"}, "--demos has keys in its address"),
    ):
        with pytest.raises(InputError, match=message):
            main(dataclasses.replace(settings, **changes))
    assert not settings.output.exists()


def test_a_trial_that_fails_and_one_that_tune_has_forgotten_leave_the_others_to_be_ranked(
    ray_cluster: object, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_gae, "SweptPPO", DrawnPPO)
    settings.output.mkdir()
    rows = settings.output / "results.jsonl"
    ghost = {"trial": "ghost", **dict.fromkeys(STEPWISE, 0.9), "env_steps": 200, "window": 20, "config": {"clip": 0.1}}
    rows.write_text(json.dumps(ghost) + "\n")
    told = sweep_gae.TrialRuns(settings.output, str(settings.tracking_uri), "parent", "key", ("clip",), {})
    plain: Any = SimpleNamespace(to_dict=dict)
    trials, failed = sweep_gae.sweep(
        plain, {"clip": tune.choice([0.3])}, {"clip": 0.2}, None, told, output=settings.output, trials=2, at_once=2,
        env_steps=200, save_updates=None, seed=0, resume=False,
    )  # fmt: skip
    assert len(failed) == 1
    assert "it has diverged" in failed[0]
    (row,) = sweep_gae.last_rows(rows, trials)
    assert (row["config"], row["env_steps"]) == ({"clip": 0.2}, 200)


def job(settings: Settings, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "jobs/sweep_gae.py", "--checkpoint", str(settings.checkpoint), "--suite", SUITE,
         "--recipe", "tiny", "--train-gate", "False", "--num-runners", "1", "--no-isolate",
         "--save-updates", "1", "--over", "gae_lambda", "clip", "--output", str(settings.output),
         "--tracking-uri", str(settings.tracking_uri), *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], seconds: float) -> str:
    """What it has said; one that takes longer is killed."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def rows_of(settings: Settings) -> list[dict]:
    path = settings.output / "results.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.mark.long
@pytest.mark.timeout(800)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_stopped_goes_on_where_its_trials_were(settings: Settings, how: signal.Signals) -> None:
    first = job(settings, "--trials", "2", "--env-steps", "2000")
    end = time.monotonic() + 250
    while not (rows := rows_of(settings)) or rows[-1]["env_steps"] < 1000:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(6)  # Tune notes the state of the sweep every 5 seconds
    first.send_signal(how)
    said = ended(first, 60)
    assert first.returncode != 0, said
    assert not (settings.output / "best_recipe.json").exists(), "it has not ended"
    before = rows_of(settings)

    second = job(settings, "--trials", "2", "--env-steps", "2000", "--resume")
    said = ended(second, 400)
    assert second.returncode == 0, said
    after = rows_of(settings)[len(before) :]
    trial = before[-1]["trial"]
    again = [row["env_steps"] for row in after if row["trial"] == trial]
    finished = before[-1]["env_steps"] >= 2000
    assert finished or again, "the interrupted trial goes on"
    assert finished or again[0] > before[0]["env_steps"], "from its checkpoint, not from the beginning"
    assert len({row["trial"] for row in before + after}) == 2
    (parent,) = find_runs(uri=settings.tracking_uri, kind="sweep")
    children = children_of(parent.info.run_id, uri=settings.tracking_uri)
    assert [run.info.status for run in children] == ["FINISHED"] * 2
    assert (settings.output / "best_recipe.json").is_file()


@pytest.mark.long
@pytest.mark.timeout(1600)
def test_a_population_takes_turns_on_a_small_machine(settings: Settings) -> None:
    """Four trials where one fits: from checkpoint to checkpoint, the worst going on from a copy of the best."""
    run = job(settings, "--trials", "4", "--scheduler", "pbt", "--env-steps", "600")
    said = ended(run, 1500)
    assert run.returncode == 0, said
    assert "so they take turns" in said
    rows = rows_of(settings)
    order = [row["trial"] for row in rows]
    assert len(set(order)) == 4
    assert sum(a != b for a, b in pairwise(order)) > 3, "each was interrupted for others"
    assert {row["trial"] for row in rows if row["env_steps"] >= 450} == set(order)
    points = {trial: {json.dumps(row["config"]) for row in rows if row["trial"] == trial} for trial in set(order)}
    assert any(len(each) > 1 for each in points.values()), "some trial went on at another point"
