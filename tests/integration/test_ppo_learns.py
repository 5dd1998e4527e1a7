"""Asynchronous PPO makes ONE policy better at three tasks with physics and pictures: the whole stack, on Ray actors.

The tasks begin alike, with the same blocks and the hand at the same place, so that the instruction alone says where to
go: in so few steps a hand reaches one block, and without reading the right one is it one time in three.

The clone has learned from an expert that is so cautious that the time limit ends most of its episodes. What it lacks is
not in its demonstrations; the reward alone says that it pays to go straight and fast.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from actors.async_ppo import AsyncPPO
from actors.async_ppo_config import AsyncPPOConfig
from actors.metrics import flat
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import load_flat
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.training.engine import EngineSettings
from tests.support.learning import (
    Played,
    clone,
    learner_config,
    learner_policy,
    play,
    record_demonstrations,
    success_rate,
    walked,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

TASKS = (0, 1, 2)  # "reach the red block", the green one, the blue one
SEED, UPDATES = 0, 60
DEMONSTRATIONS, SPEED, NOISE = 40, 0.59, 0.2
STEPS = 25  # environment steps: hardly more than three decisions, in which a cautious hand seldom gets there
SIMULATOR = SimulatorConfig(suite="tabletop", tasks=TASKS, image_size=32, max_steps=STEPS, settle_steps=0)
STARTS = [(task, state) for state in range(40) for task in TASKS]
GOOD_ENOUGH = 0.65  # success in training, where actions are drawn, after three updates in a row


def ppo_config(checkpoint: Path) -> AsyncPPOConfig:
    return (
        AsyncPPOConfig()
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        .debugging(seed=SEED)
        .training(
            checkpoint=str(checkpoint), simulator=SIMULATOR, engine=EngineSettings(zero_stage=0),
            isolate=False, buffers=1,  # two cores have no room for simulators beside their runners
            max_lag=4, queue_decisions=512, correction="decoupled", train_actions=True, action_std=0.8,
            update_decisions=512, minibatch_decisions=128, epochs=3, target_kl=10.0,
            policy_lr=7e-4, critic_lr=1e-3, latent_coefficient=0.2, lambda_entropy=0.0, lambda_delta=0.0,
        )
    )  # fmt: skip


def learned(algorithm: AsyncPPO) -> AvaVlaPolicy:
    """The policy with the newest weights."""
    group = algorithm.learner_group
    policy = AvaVlaPolicy(group.policy_config)
    load_flat(policy, ray.get(group.weights()))
    return policy


def by_task(played: list[Played]) -> list[float]:
    """Success of each task."""
    return [success_rate([each for each in played if each.task == task]) for task in TASKS]


def good_enough(points: list[dict[str, float]]) -> bool:
    last = [point["rollout/success_rate"] for point in points[-3:]]
    return len(last) == 3 and min(last) >= GOOD_ENOUGH


def test_ppo_teaches_a_clone_to_be_fast_enough(ray_cluster: dict, tmp_path: Path) -> None:
    statistics = record_demonstrations(
        tmp_path / "demonstrations", SimulatorConfig(suite="tabletop", image_size=32), TASKS, DEMONSTRATIONS,
        speed=SPEED, noise=NOISE,
    )  # fmt: skip
    policy = learner_policy(learner_config(), SEED)
    clone(policy, walked(tmp_path / "demonstrations", policy, streams=64), 340, rate=2.5e-3, latent_steps=1)
    save_checkpoint(tmp_path / "clone", policy, statistics, stage="bc", provenance={})
    before = play(policy, statistics, SIMULATOR, STARTS, depth=1)
    assert success_rate(before) < 0.3

    algorithm = ppo_config(tmp_path / "clone").build_algo()
    try:
        points: list[dict[str, float]] = []
        while len(points) < UPDATES and not good_enough(points):
            points.append(flat(algorithm.train()))
        after = play(learned(algorithm), statistics, SIMULATOR, STARTS, depth=1)
    finally:
        algorithm.stop()
    training = [round(point["rollout/success_rate"], 2) for point in points]
    print(f"success {by_task(before)} -> {by_task(after)} after {len(points)} updates; in training {training}")
    assert success_rate(after) > 0.65, f"{by_task(after)}, it was {by_task(before)}; in training {training}"
    assert min(by_task(after)) > 0.5, f"{by_task(after)}, it was {by_task(before)}; in training {training}"
    assert max(point["learner/lag"] for point in points) > 0, "nothing was asynchronous"
    assert all(point["learner/lag"] <= 4 for point in points)
