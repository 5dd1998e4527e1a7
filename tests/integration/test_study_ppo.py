"""A study of two ways of doing PPO on the table-top, stopped on its way, gone on with, and gone on with once more for
longer. Its jobs run in this process, from the words that they would be started with."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.settings import PPOSettings, save_recipe
from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.tracking import find_runs
from jobs.study_ppo import Settings, main
from tests.support.policies import some_statistics

pytestmark = pytest.mark.ray


class Stopped(Exception):
    """As if the machine had been switched off."""


class Jobs:
    """Runs jobs in place of processes. begun: titles. stop_at: the one that ends with the machine."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.stop_at: str | None = None

    def run(self, title: str, job: str, words: Sequence[Any]) -> None:
        self.begun.append(title)
        if title == self.stop_at:
            raise Stopped
        module = importlib.import_module(f"jobs.{job}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"jobs/{job}.py", *map(str, words)])
            with pytest.raises(SystemExit) as end:
                run_job(module.main, module.Settings)
        assert end.value.code == 0, title


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs()
    monkeypatch.setattr("avavla_ray.evaluation.study_chain.run_stage", jobs.run)
    return jobs


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    recipe = tmp_path / "quick.json"
    save_recipe(recipe, PPOSettings(update_decisions=16, minibatch_decisions=8, epochs=1, isolate=False), base="tiny")
    save_checkpoint(tmp_path / "bc", AvaVlaPolicy(preset("tiny")), some_statistics(), stage="bc", provenance={})
    return Settings(
        suite="tabletop", tasks=(0,), panels=("asynchrony",), checkpoint=tmp_path / "bc", recipe=str(recipe),
        env_steps=400, seeds=(3,), episodes=2, depth=1, max_steps=24, fragment_decisions=4, num_runners=1,
        output=tmp_path / "study", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )  # fmt: skip


def curve(settings: Settings, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (settings.output / name / "curve.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_a_study_goes_on_where_it_was_stopped(ray_cluster: object, settings: Settings, jobs: Jobs) -> None:
    jobs.stop_at = "PPO: synchronous-3"
    with pytest.raises(Stopped):
        main(settings)
    before = curve(settings, "base-3")
    assert not (settings.output / "study.md").exists()

    jobs.stop_at = None
    again = replace(settings, resume=True)
    main(again)
    assert curve(settings, "base-3") == before, "what is finished is not done again"
    report = json.loads((settings.output / "study.json").read_text())
    rows = {row["variant"]: row for row in report["rows"]}
    assert list(rows) == ["start", "base", "synchronous"]
    assert [row["episodes"] for row in rows.values()] == [2, 2, 2]
    assert rows["synchronous"]["mean_lag"] == 0
    assert all(row["runs"][0]["env_steps"] >= 400 for row in list(rows.values())[1:])
    assert (settings.output / "asynchrony.png").is_file()
    (run,) = find_runs(uri=settings.tracking_uri, kind="study")
    assert run.info.status == "FINISHED"
    assert len(find_runs(uri=settings.tracking_uri, kind="ppo")) == 2

    main(replace(again, env_steps=800))
    longer = curve(settings, "base-3")
    assert longer[: len(before)] == before
    assert longer[-1]["total/env_steps"] >= 800
    assert longer[-1]["total/seconds"] > before[-1]["total/seconds"]
    assert {path.name for path in (settings.output / "evaluate").iterdir()} == {
        "start", "base-3-400", "base-3-800", "synchronous-3-400", "synchronous-3-800",
    }  # fmt: skip
    assert jobs.begun.count("PPO: base-3") == 3
    with pytest.raises(InputError, match="--env-steps 400: the runs in .* are of 800"):
        main(again)
    save_checkpoint(settings.checkpoint, AvaVlaPolicy(preset("tiny")), some_statistics(), stage="bc", provenance={})
    with pytest.raises(InputError, match="checkpoint_digest"):
        main(replace(again, env_steps=800))
