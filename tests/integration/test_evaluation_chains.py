"""CALVIN's chains on the pool, against a fake calvin_env (tests/support/fake_calvin_env): no physics, same API."""

import json
from dataclasses import replace
from functools import partial

import imageio.v3
import pytest

from actors.evaluation_chains import Chain, ChainEvaluation
from actors.evaluation_pool import EvaluationPool
from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.isolated.faults import FaultPlan
from avavla_ray.tracking import find_runs
from jobs.evaluate import Settings, main
from tests.support.calvin_chains import LED_CHAIN, make_isolated_button_calvin
from tests.support.fake_calvin import FAKE_ROOT, calvin_env_at
from tests.support.policies import some_statistics, stirred_policy, tiny

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def fake():
    with calvin_env_at(FAKE_ROOT):
        yield


def test_a_chain_that_kills_simulators_is_quarantined_and_one_that_did_once_is_played_again(ray_cluster, tmp_path):
    plan = FaultPlan(tmp_path, every=30, faults=("killed",) * 4 + ("none",) * 1000)
    factory = partial(make_isolated_button_calvin, plan)
    records = []
    config = SimulatorConfig(suite="calvin_d", render="none")
    with EvaluationPool(None, config, 1, factory=factory, isolate=False) as pool:
        pool.play([Chain(None, number, LED_CHAIN) for number in range(3)], lambda _, record, __: records.append(record))
        assert pool.provenance["isolated"] is True
        assert "decided_on" not in pool.provenance
    first, second, third = records
    assert (first.sequence, first.attempts, first.quarantined) == (0, 3, True)
    assert "SIGKILL" in first.error
    assert (second.sequence, second.attempts, second.completed, second.error) == (1, 2, 2, None)
    assert (third.sequence, third.attempts, third.completed, third.error) == (2, 1, 2, None)
    assert second.steps == third.steps


def test_the_job_plays_chains_at_every_setting_and_resumes(ray_cluster, tmp_path, monkeypatch, capsys):
    save_checkpoint(
        tmp_path / "checkpoint", stirred_policy(tiny()), some_statistics(), stage="cloned", provenance={}
    )  # fmt: skip
    factory = partial(make_isolated_button_calvin, FaultPlan(tmp_path, every=10**6))
    monkeypatch.setattr(ChainEvaluation, "_factory", lambda self: factory)
    monkeypatch.setattr("actors.evaluation_chains.published_sequences", lambda: (LED_CHAIN,) * 3)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings(
        checkpoint=tmp_path / "checkpoint", suite=("calvin_d_chains",), thresholds=(0.5,), depths=(1,), render="fast",
        max_steps=16, episodes=1, output=tmp_path / "out", num_runners=1, tracking_uri=uri,
    )  # fmt: skip
    main(settings)
    played = (tmp_path / "out" / "chains.jsonl").read_text()
    video = tmp_path / "out" / "videos" / "cloned_chain0_threshold_0.50.mp4"
    filmed = imageio.v3.immeta(video)
    assert (filmed["fps"], filmed["duration"]) == (30, pytest.approx((16 + 30) / 30, abs=0.1))  # the one task it failed
    at = video.stat().st_mtime_ns
    main(replace(settings, episodes=2, resume=True))
    assert (tmp_path / "out" / "chains.jsonl").read_text().startswith(played)

    assert video.stat().st_mtime_ns == at
    result = json.loads((tmp_path / "out" / "depth_1.json").read_text())
    assert (result["chains"], result["setting"], result["fixed_depth"], result["max_steps"]) == (2, "depth_1", 1, 16)
    assert result["mean_latent_steps"] == 1.0
    assert result["average_length"] == 0.0
    assert [row["tasks"] for row in result["in_a_row"]] == [1, 2, 3, 4, 5]
    assert result["provenance"]["deviations"] == [
        "render fast instead of reference", "16 steps a task instead of 360", "the first 2 sequences instead of 1,000",
    ]  # fmt: skip
    assert "2 chains of calvin_d_chains" in capsys.readouterr().out
    runs = find_runs(uri=uri, kind="chains")
    assert {run.data.params["exit_setting"] for run in runs} == {"0.50", "fixed depth 1"}
    assert all(run.data.metrics["average_length"] == 0 for run in runs)
    for changes, message in (
        ({"tasks": (1,)}, "plays chains of tasks"),
        ({"episodes": 1001}, "1 to 1000 chains"),
        ({"max_steps": 17}, "another evaluation"),
    ):
        with pytest.raises(InputError, match=message):
            main(replace(settings, resume=True, **changes))
