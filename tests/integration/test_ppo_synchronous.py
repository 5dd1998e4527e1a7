"""With max_lag 0 the algorithm on a cluster is synchronous PPO: step by step what one process does with plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from actors.metrics import flat
from actors.orders import Order
from actors.placement import PolicyCopy
from actors.rollout import Rollout
from actors.settings import PPOSettings
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.action_noise import with_action_noise
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.weights import flatten
from avavla_ray.simulators.base import EpisodeSummary, SimulatorConfig
from avavla_ray.training.engine import EngineSettings
from tests.support.point_simulator import make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny
from tests.support.reference_ppo import Progress, ReferencePPO

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # a run is made in a fixture

SEED, UPDATES, RUNNERS, SIMULATORS, DECISIONS = 3, 3, 2, 2, 8
POINT = SimulatorConfig(suite="point", image_size=32)
# Some gradients are zero but for rounding (that of an attention's key bias, which softmax does not see). Adam makes
# whole steps of them unless its epsilon is larger than rounding.
ENGINE = EngineSettings(epsilon=1e-4)
CASES: dict[str, dict[str, Any]] = {
    # Fewer decisions than a single runner brings: the update still learns from the whole round.
    "latent": {"isolate": False, "update_decisions": 10, "policy_lr": 1e-3, "target_kl": 0.01, "value_clip": 0.1},
    "chunks and exits": {
        "train_actions": True, "action_std": 0.2, "learn_action_std": True, "exit_actions": True, "compute_cost": 0.02,
        "update_decisions": 32, "policy_lr": 1e-4, "target_kl": 0.05, "warm_up_updates": 2, "decay_updates": 6,
    },
}  # fmt: skip


@dataclass
class Course:
    """How a run went: after each update its weights, what the learner said of it, and how many episodes ended so."""

    weights: list[np.ndarray] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    episodes: Counter[tuple[Any, ...]] = field(default_factory=Counter)


def outcome(episode: EpisodeSummary) -> tuple[Any, ...]:
    """What an episode was and came to, but for its name, of which each run has its own."""
    return episode.task, episode.seed, episode.success, episode.steps, episode.decisions, episode.latent_steps


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "checkpoint"
    # Of this seed decisions leave after one, some or all latent steps.
    save_checkpoint(folder, stirred_policy(tiny(), seed=6), point_statistics(), stage="bc", provenance={})
    return folder


def settings_of(case: str) -> PPOSettings:
    return PPOSettings(max_lag=0, minibatch_decisions=8, epochs=3, critic_lr=3e-3, **CASES[case])


def on_the_cluster(checkpoint: Path, settings: PPOSettings) -> Course:
    """The algorithm itself: Ray actors, DeepSpeed, an object store in between."""
    config = (
        AsyncPPOConfig()
        .env_runners(
            num_env_runners=RUNNERS, num_envs_per_env_runner=SIMULATORS, rollout_fragment_length=DECISIONS
        )
        .debugging(seed=SEED)
        .training(
            checkpoint=str(checkpoint), simulator=POINT, make_simulator=make_point_simulator, engine=ENGINE,
            **{name: getattr(settings, name) for name in PPOSettings.names()},
        )
    )  # fmt: skip
    algorithm, course = config.build_algo(), Course()
    try:
        for _ in range(UPDATES):
            point = flat(algorithm.train())
            assert point["learner/lag"] == 0
            assert point["learner/decisions"] == RUNNERS * SIMULATORS * DECISIONS
            course.weights.append(np.array(ray.get(algorithm.learner_group.weights()).array))
            course.progress.append(
                Progress(
                    [point["learner/kl"]], int(point["learner/minibatches"]), int(point["learner/policy_minibatches"])
                )
            )
            course.episodes.update(map(outcome, algorithm.episodes))
    finally:
        algorithm.stop()
    return course


class Runners:
    """The same runners, one after the other, and all with one policy."""

    def __init__(self, policy: AvaVlaPolicy, settings: PPOSettings) -> None:
        self._rollouts = [
            Rollout(
                PolicyCopy(policy, point_statistics()), make_point_simulator, POINT, simulators=SIMULATORS, buffers=1,
                first_slot=(runner - 1) * SIMULATORS, slots=RUNNERS * SIMULATORS, seed=(SEED, runner, 0),
                train_actions=settings.train_actions, draw_exits=settings.exit_actions,
            )
            for runner in range(1, RUNNERS + 1)
        ]  # fmt: skip

    def play(self, version: int) -> list[Fragment]:
        """So many decisions in every simulator; the policy is already the one of this version."""
        fragments = []
        for rollout in self._rollouts:
            rollout.placement.version = version
            fragments += rollout.deliver(Order(WeightHandle(version, ()), DECISIONS, lockstep=True))[0]
        return fragments


def in_one_process(checkpoint: Path, settings: PPOSettings, seed: int = SEED, updates: int = UPDATES) -> Course:
    policy = load_checkpoint(checkpoint).policy
    if settings.train_actions:
        with_action_noise(policy, settings.action_std)
    reference, course = ReferencePPO(policy, settings, ENGINE, seed), Course()
    runners = Runners(policy, settings)
    for version in range(updates):
        fragments = runners.play(version)
        course.progress.append(reference.update(fragments, version))
        course.weights.append(np.array(flatten(policy).array))
        course.episodes.update(outcome(episode) for fragment in fragments for episode in fragment.finished)
    return course


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(case: str, checkpoint: Path) -> Course:
    return in_one_process(checkpoint, settings_of(case))


@pytest.fixture(scope="module")
def course(ray_cluster: dict, case: str, checkpoint: Path) -> Iterator[Course]:
    return on_the_cluster(checkpoint, settings_of(case))


def test_weights_are_those_of_plain_loops_after_every_update(course, expected, checkpoint, case) -> None:
    first = load_checkpoint(checkpoint).policy
    if settings_of(case).train_actions:
        with_action_noise(first, settings_of(case).action_std)
    before = flatten(first).array
    for update in range(UPDATES):
        now, wanted = course.weights[update], expected.weights[update]
        np.testing.assert_allclose(now, wanted, atol=1e-6, rtol=0, err_msg=f"after update {update}")
        assert np.abs(wanted - before).max() > 1e-3  # where there is something to compare
        before = wanted


def test_updates_stop_at_the_same_minibatch(course, expected) -> None:
    for now, wanted in zip(course.progress, expected.progress, strict=True):
        assert (now.minibatches, now.policy_minibatches) == (wanted.minibatches, wanted.policy_minibatches)
        assert now.divergences[-1] == pytest.approx(wanted.divergences[-1], rel=1e-3)
    assert any(0 < each.policy_minibatches < each.minibatches for each in expected.progress), "no update was stopped"


def test_the_same_episodes_were_played(course, expected) -> None:
    assert course.episodes == expected.episodes
    successes = {success for _, _, success, *_ in expected.episodes}
    assert successes == {True, False}, "successes and time limits should both have been learned from"


@pytest.mark.parametrize(
    "mistake", [{"gae_lambda": 0.94}, {"lambda_delta": 0.09}, {"normalise": "steps"}, {"seed": SEED + 1}]
)
def test_a_small_mistake_would_be_noticed(expected, checkpoint, case, mistake) -> None:
    changes = dict(mistake)
    seed = changes.pop("seed", SEED)  # of the order of minibatches
    settings = replace(settings_of(case), **changes)
    first = 1 if settings.warm_up_updates else 0  # the policy's first update
    wrong = in_one_process(checkpoint, settings, seed, updates=first + 1)
    assert np.abs(wrong.weights[first] - expected.weights[first]).max() > 1e-5  # runs that are right differ by 1e-6
