"""From demonstrations over PPO to a calibrated gate on the table-top, and whether exits come as they were proposed.

docs/calibration.md shows numbers of this course: run it with -s for those of this machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.async_ppo_config import AsyncPPOConfig
from actors.ppo_run import Budget, finish, train
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.training.engine import EngineSettings
from jobs import calibrate_exit, evaluate
from tests.support.learning import clone, learner_config, learner_policy, record_demonstrations, walked

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

TASKS, STEPS = (0, 1, 2), 24  # "reach the red block", the green one, the blue one; three decisions an episode
THRESHOLDS = (0.30, 0.55, 0.85)
DELTA = 0.002  # by the range of the gains, which the job prints: the task needs no thinking to be done


def learned(folder: Path) -> Path:
    """A checkpoint of PPO, of up to five latent steps."""
    seen = SimulatorConfig(suite="tabletop", image_size=32)
    statistics = record_demonstrations(folder / "demonstrations", seen, TASKS, 50, speed=0.59, noise=0.2)
    policy = learner_policy(learner_config(latent__max_steps=5, latent__early_exit=True), 0)
    batches = walked(folder / "demonstrations", policy, streams=64)
    clone(policy, batches, 250, rate=2.5e-3, latent_steps=1)
    clone(policy.train(), batches, 110, rate=1e-3, latent_steps=5)
    save_checkpoint(folder / "clone", policy, statistics, stage="bc", provenance={})
    simulator = SimulatorConfig(suite="tabletop", tasks=TASKS, image_size=32, max_steps=STEPS, settle_steps=0)
    config = (
        AsyncPPOConfig()
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        .debugging(seed=0)
        .training(
            checkpoint=str(folder / "clone"), simulator=simulator, engine=EngineSettings(zero_stage=0), isolate=False,
            buffers=1, max_lag=4, queue_decisions=512, correction="decoupled", train_actions=True, action_std=0.8,
            update_decisions=512, minibatch_decisions=128, epochs=3, target_kl=10.0, policy_lr=7e-4, critic_lr=1e-3,
            latent_coefficient=0.2, lambda_entropy=0.0, lambda_delta=0.0,
        )
    )  # fmt: skip
    algorithm, points = train(config, Budget(updates=50), folder / "ppo")
    finish(algorithm, points, folder / "ppo", seed=0, trained_from=load_checkpoint(folder / "clone").digest)
    return folder / "ppo" / "checkpoint"


def test_a_trained_policy_is_calibrated_and_exits_about_as_proposed(ray_cluster, tmp_path):
    uri, calibrated = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "calibrated"
    calibrate_exit.main(
        calibrate_exit.Settings(
            checkpoint=learned(tmp_path), suite="tabletop", tasks=TASKS, episodes=150, max_steps=STEPS, delta=DELTA,
            post="isotonic", isolate=False, output=calibrated, tracking_uri=uri,
        )
    )  # fmt: skip
    before, trained, mapped = json.loads((calibrated / "summary.json").read_text())["gates"]
    assert before["overall"]["brier"] == pytest.approx(0.25)  # PPO as the paper has it leaves the gate alone
    assert trained["overall"]["brier"] < 0.15
    assert mapped["overall"]["ece"] < 0.1
    played = tmp_path / "played"
    evaluate.main(
        evaluate.Settings(
            checkpoint=calibrated / "checkpoint", suite=("tabletop",), tasks=TASKS, episodes=40, max_steps=STEPS,
            thresholds=THRESHOLDS, render="fast", videos=False, isolate=False, output=played, tracking_uri=uri,
        )
    )  # fmt: skip
    proposed = {each["threshold"]: each["latent_steps"] for each in mapped["exits"]}
    for threshold in THRESHOLDS:
        result = json.loads((played / f"threshold_{threshold:.2f}.json").read_text())
        print(f"threshold {threshold}: {proposed[threshold]:.2f} proposed, {result['mean_latent_steps']:.2f} played")
        assert result["mean_latent_steps"] == pytest.approx(proposed[threshold], abs=0.5)
