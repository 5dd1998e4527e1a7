"""Demonstrations that cloning held out stay so in PPO, and offline evaluation knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.async_ppo_config import AsyncPPOConfig
from actors.ppo_run import Budget, finish, train
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.errors import InputError
from avavla_ray.evaluation.offline_data import choose_data
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.demonstration_data import make_dataset
from tests.support.point_simulator import make_point_simulator
from tests.support.policies import responsive_policy

pytestmark = pytest.mark.ray


def config_from(checkpoint: Path, demonstrations: Path) -> AsyncPPOConfig:
    config = AsyncPPOConfig().env_runners(num_env_runners=1, num_envs_per_env_runner=2).debugging(seed=1)
    return config.training(
        checkpoint=str(checkpoint), demonstrations=str(demonstrations), demonstration_streams=2, update_decisions=32,
        simulator=SimulatorConfig(suite="point", tasks=(0,), image_size=32), make_simulator=make_point_simulator,
    )  # fmt: skip


@pytest.mark.long
def test_a_policy_of_ppo_is_evaluated_on_what_its_cloning_held_out(ray_cluster: dict, tmp_path: Path) -> None:
    demos, start, output = make_dataset(tmp_path / "demos", episodes=6), tmp_path / "bc", tmp_path / "run"
    metadata = read_metadata(demos)
    output.mkdir()

    def write_start(*held_out: int) -> None:
        names = [metadata.episodes[index].episode for index in held_out]
        extra = {"held_out": {metadata.name: names, "other": ["x"]}}
        save_checkpoint(start, responsive_policy(), metadata.statistics, stage="bc", provenance={}, extra=extra)

    write_start(1, 4)
    for updates in (1, 2):
        algorithm, points = train(config_from(start, demos), Budget(updates=updates), output, resume=updates == 2)
        assert points[-1]["total/updates"] == updates
        finish(algorithm, points, output, seed=1, trained_from="")
        made = load_checkpoint(output / "checkpoint")
        assert made.extra["held_out"] == load_checkpoint(start).extra["held_out"]
        (chosen,) = choose_data([demos], made)
        assert (chosen.episodes, chosen.held_out) == ([1, 4], True)
    write_start(2)
    with pytest.raises(InputError, match="are not what the run began with"):
        train(config_from(start, demos), Budget(updates=3), output, resume=True)
