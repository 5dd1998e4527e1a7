"""Simulators keep nothing of earlier episodes that a record could show: an actor's next episode may be any."""

import contextlib
import dataclasses

import pytest

from actors.evaluation_actors import Evaluator
from actors.evaluation_pool import Episode
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import make_simulator
from tests.support.policies import some_statistics, stirred_policy, tiny

PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))


def records(suite, order):
    agent = Agent(stirred_policy(tiny()).eval(), some_statistics())
    with contextlib.closing(make_simulator(SimulatorConfig(suite=suite, image_size=32, max_steps=32))) as simulator:
        evaluator = Evaluator(agent, simulator.config, lambda _: simulator)
        played = {place: evaluator.play(Episode(ExitSetting(exit_threshold=0.55), *place), 1)[0] for place in order}
    return {place: dataclasses.replace(record, milliseconds=[]) for place, record in played.items()}


@pytest.mark.parametrize("suite", ["tabletop", pytest.param("libero_object", marks=pytest.mark.libero)])
def test_what_was_played_before_changes_no_record(suite):
    ahead = records(suite, PLACES)
    assert len({str(record.scores) for record in ahead.values()}) == len(PLACES)
    assert records(suite, PLACES[::-1]) == ahead
