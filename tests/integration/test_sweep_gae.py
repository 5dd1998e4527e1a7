"""Sweeps over real PPO runs: runs below the sweep's, a recipe that training takes, and a killed sweep that goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.settings import recipe
from actors.sweep_gae import STEPWISE
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.tracked_run import client_of
from avavla_ray.tracking import children_of, find_runs
from jobs.sweep_gae import Settings, main
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
