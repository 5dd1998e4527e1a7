"""An update is the same whatever DeepSpeed shards, also after the policy has moved enough and stands still."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray

from actors.async_ppo_config import AsyncPPOConfig
from avavla_ray.policy.checkpoint import save_checkpoint
from avavla_ray.simulators.base import EpisodeSummary
from avavla_ray.training.engine import EngineSettings
from tests.support.drawn_fragments import drawn_fragments
from tests.support.point_simulator import point_statistics
from tests.support.policies import stirred_policy, tiny

pytestmark = pytest.mark.ray
UPDATES = 2


def trained(checkpoint: Path, fragments: list, stage: int) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Weights and metrics after some updates, by two ranks with unequal shares."""
    config = AsyncPPOConfig().learners(num_learners=2)
    # The large epsilon keeps Adam from turning the rounding of a gradient that is zero into steps of full length.
    config.training(
        checkpoint=str(checkpoint), engine=EngineSettings(zero_stage=stage, epsilon=1e-4), train_actions=True,
        exit_actions=True, action_std=0.3, learn_action_std=True, policy_lr=3e-3, critic_lr=1e-3, target_kl=0.02,
        minibatch_decisions=12, epochs=2, imitation_weight=0.1, imitation_streams=8,
    )  # fmt: skip
    group = config.build_learner_group()
    try:
        metrics = []
        for _ in range(UPDATES):
            group.update_async([(ray.put(lot), sum(map(len, lot))) for lot in (fragments[:2], fragments[2:])])
            while (outcome := group.poll()) is None:
                ray.wait(group.pending, timeout=1)
            assert outcome.refusal is None
            metrics.append(outcome.metrics)
        return np.array(ray.get(group.weights()).array), metrics
    finally:
        group.shutdown()


@pytest.mark.long
def test_all_stages_learn_the_same(ray_cluster: dict, tmp_path: Path) -> None:
    policy = stirred_policy(tiny(action_noise=0.3)).eval()
    save_checkpoint(tmp_path / "start", policy, point_statistics(), stage="bc", provenance={})
    fragments = drawn_fragments(policy, exits=True)
    for number, fragment in enumerate(fragments):
        fragment.episode_ids = [f"{number}-{name}" for name in fragment.episode_ids]
        # Something to imitate at either rank.
        fragment.finished = [EpisodeSummary(name, 0, None, 0, True, 9, 9, 1.0) for name in fragment.episode_ids]
    (first, told), *others = (trained(tmp_path / "start", fragments, stage) for stage in (0, 2, 3))
    for update in told:
        assert 0 < update["policy_minibatches"] < update["minibatches"]  # the policy did stop in each
        assert np.isfinite(update["imitation_loss"])
    for weights, metrics in others:
        np.testing.assert_allclose(weights, first, atol=2e-6)
        for one, other in zip(metrics, told, strict=True):
            assert one["policy_minibatches"] == other["policy_minibatches"]
            assert one["value_loss"] == pytest.approx(other["value_loss"], rel=1e-4)
