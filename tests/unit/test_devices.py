"""GPUs of PPO's learner ranks: what is chosen, and that it is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.async_ppo import AsyncPPO
from actors.ppo_job import Settings, choose, configure
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.training.devices import ppo_gpus_each


@pytest.mark.parametrize(
    ("given", "ranks", "found", "servers", "each"),
    [
        (None, 1, 0.0, 0.0, 0.0),
        (None, 1, 1.0, 0.0, 1.0),
        (None, 1, 1.0, 0.5, 0.0),
        (None, 2, 3.0, 1.0, 1.0),
        (None, 3, 3.0, 1.0, 0.0),
        (0.0, 1, 8.0, 0.0, 0.0),
        (1.0, 2, 0.0, 0.0, 1.0),  # of a machine that may join
        (0.5, 1, 1.0, 0.5, 0.5),
    ],
)
def test_one_each_where_there_are_enough_besides_the_servers(
    given: float | None, ranks: int, found: float, servers: float, each: float
) -> None:
    assert ppo_gpus_each(given, ranks, found, servers) == each


@pytest.mark.parametrize(
    ("given", "ranks", "complaint"),
    [(-1.0, 1, "--learner-gpus -1: give at least 0"), (0.5, 2, "0.5 for 2 learners: each needs one of its own")],
)
def test_what_no_rank_could_work_with_is_refused(given: float, ranks: int, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        ppo_gpus_each(given, ranks, found=4)


def test_ranks_ask_for_them() -> None:
    settings = Settings(num_runners=1, learners=2, output=Path("x"))
    for given, asked in ((1.0, [1.0, 1.0]), (0.0, []), (None, [])):
        chosen = replace(settings, learner_gpus=given)
        config = configure(chosen, choose(chosen), SimulatorConfig(suite="tabletop", tasks=(0,)))
        bundles = AsyncPPO.default_resource_request(config.to_dict()).bundles
        assert [bundle["GPU"] for bundle in bundles if bundle.get("GPU")] == asked
