"""Evaluation on a real Ray cluster: sharding changes nothing, failures cost an episode at most, and the job resumes."""

import dataclasses
import functools
import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from actors.evaluator import Episode, evaluate
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.results import summarise
from avavla_ray.normalisation import FieldStatistics, Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.tracking import find_runs
from tests.support.failing_simulators import always_breaks, breaks_at, dies_once, dies_when_first_made
from tests.support.point_simulator import make_point_simulator

SETTINGS = (ExitSetting(exit_threshold=0.5), ExitSetting(fixed_depth=2))
CONFIG = SimulatorConfig(image_size=32)


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    action = FieldStatistics.of(rng.uniform(-1, 1, (200, 7)), mask=[True] * 6 + [False])
    statistics = Statistics("test", action, FieldStatistics.of(rng.uniform(-1, 1, (200, 8))), episodes=1, steps=200)
    return Agent(AvaVlaPolicy(preset("tiny")), statistics)


def play(agent, actors, factory=make_point_simulator, episodes=None, isolate=True):
    played = []
    episodes = episodes or [Episode(s, task, state) for task in (0, 1) for state in range(3) for s in SETTINGS]
    described = evaluate(agent, CONFIG, episodes, actors, lambda _, record, __: played.append(record), factory, isolate)
    return described, {(r.setting, r.task, r.initial_state): r for r in played}, played


def test_what_is_decided_is_what_the_setting_says(ray_cluster, agent):
    described, records, played = play(agent, 1)
    assert described["suite"] == "point"
    assert described["decided_on"] == "cpu"
    assert len(played) == len(records) == 12
    for key, record in records.items():
        assert len(record.latent_steps) == len(record.milliseconds) == len(record.scores) > 1
        assert [len(scores) for scores in record.scores] == record.latent_steps
        assert key[0] != "depth_2" or set(record.latent_steps) == {2}


@pytest.mark.parametrize("isolate", [True, False])
def test_a_killed_process_is_replaced_and_no_episode_is_lost_or_doubled(ray_cluster, agent, tmp_path, isolate):
    mark = tmp_path / "mark"
    _, records, played = play(agent, 2, functools.partial(dies_once, mark), isolate=isolate)
    assert mark.exists()
    assert len(played) == len(records) == 12
    assert all(record.error is None for record in played)


@pytest.mark.parametrize("isolate", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_death_in_the_first_construction_ends_nothing(ray_cluster, agent, tmp_path, isolate):
    factory = functools.partial(dies_when_first_made, tmp_path / "mark")
    described, records, _ = play(agent, 1, factory, [Episode(SETTINGS[1], 0, 0)], isolate)
    assert (tmp_path / "mark").exists()
    assert described["suite"] == "point"
    assert all(record.error is None for record in records.values())
    assert len(records) == 1


def test_an_episode_that_always_breaks_is_reported_with_its_reason(ray_cluster, agent):
    _, _, played = play(agent, 1, always_breaks, [Episode(SETTINGS[0], 0, 0)])
    (record,) = played
    assert record.error is not None
    assert "the point fell off the plane" in record.error
    assert not record.success


@pytest.mark.parametrize("isolate", [True, False])
def test_a_task_that_kills_its_simulators_is_quarantined_and_the_other_is_played(ray_cluster, agent, isolate, capfd):
    factory = functools.partial(breaks_at, 1)
    episodes = [Episode(SETTINGS[1], task, state) for state in range(5) for task in (0, 1)]
    played = []
    described = evaluate(agent, CONFIG, episodes, 1, lambda _, record, __: played.append(record), factory, isolate)
    assert described["isolated"] is isolate
    assert len({(record.task, record.initial_state) for record in played}) == len(played) == 10
    for record in played:
        assert record.quarantined is (record.task == 1)
        assert (record.error is None) is (record.task == 0)
    assert "task 1 is quarantined: its simulator died 3 times in a row" in capfd.readouterr().out
    result = summarise(SETTINGS[1], played, {0: "right", 1: "left"})
    assert result["episodes"] == result["aborted_episodes"] == 5
    assert list(result["quarantined_tasks"]) == ["1"]


@pytest.mark.libero
def test_the_job_writes_results_video_and_runs_and_resumes(ray_cluster, agent, tmp_path):
    from jobs.evaluate import Settings, main

    save_checkpoint(tmp_path / "checkpoint", agent.policy, agent.statistics, stage="bc", provenance={"seed": 3})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings(
        checkpoint=tmp_path / "checkpoint", tasks=(2,), thresholds=(0.4, 1.0), depths=(1,), render="fast", max_steps=16,
        episodes=1, output=tmp_path / "out", num_runners=2, tracking_uri=uri,
    )  # fmt: skip
    main(settings)
    ledger = (tmp_path / "out" / "episodes.jsonl").read_text()
    main(dataclasses.replace(settings, episodes=2, resume=True, placement="server"))
    assert (tmp_path / "out" / "episodes.jsonl").read_text().startswith(ledger)

    result = json.loads((tmp_path / "out" / "threshold_0.40.json").read_text())
    assert result["episodes"] == 2
    assert result["exit_threshold"] == 0.4
    assert result["provenance"]["simulator"]["assets"] == "bundled"
    assert result["provenance"]["trained"] == {"seed": 3}
    assert "render fast instead of reference" in result["provenance"]["deviations"]
    assert json.loads((tmp_path / "out" / "depth_1.json").read_text())["mean_latent_steps"] == 1.0
    (video,) = (tmp_path / "out" / "videos").glob("*.mp4")
    frames = imageio.imread(video)
    assert len(frames) == 16 + 20
    assert frames[0, :384].std() > 10  # a scene, not a blank

    runs = find_runs(uri=uri, kind="evaluation")
    assert {run.data.params["exit_setting"] for run in runs} == {"0.40", "1.00", "fixed depth 1"}
    assert all(run.data.metrics["episodes"] == 2 for run in runs)

    from jobs import compare

    compare.main(compare.Settings(output=tmp_path / "plots", tracking_uri=uri))
    assert imageio.imread(tmp_path / "plots" / "success_against_latent_steps.png").shape[1] > 1000
    assert (tmp_path / "plots" / "table.md").read_text().count("\n") == 5
