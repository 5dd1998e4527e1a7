"""A pool's records depend on nothing but what is played, and its simulators outlast a call."""

import contextlib
import dataclasses
import functools
import os

import pytest
import torch

from actors.evaluation_actors import Evaluator
from actors.evaluation_pool import Episode, EvaluationPool
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from tests.support.counted_simulator import make_counted_simulator
from tests.support.failing_simulators import breaks_at
from tests.support.mortal_agent import MortalAgent
from tests.support.point_simulator import PointSimulator, make_point_simulator, point_statistics
from tests.support.policies import stirred_policy, tiny

pytestmark = pytest.mark.ray

CONFIG = SimulatorConfig(image_size=32)
SETTINGS = (
    ExitSetting(exit_threshold=0.5, families=(("reach", (0.9, 0.3, 0.1, 0.0)),)),
    ExitSetting(exit_threshold=0.1),
    ExitSetting(fixed_depth=0),
)
EPISODES = [Episode(setting, task, state) for task in (0, 1) for state in range(3) for setting in SETTINGS]


@pytest.fixture(scope="module")
def agent():
    policy = stirred_policy(tiny()).eval()
    with torch.no_grad():  # a gate that tells these states apart: its logits lie around 0.27, some hundredths apart
        policy.loop.exit_gate.leave[1].weight.mul_(100)
        policy.loop.exit_gate.leave[1].bias.sub_(0.27).mul_(100)
    return Agent(policy, point_statistics())


def untimed(record):
    return dataclasses.replace(record, milliseconds=[len(record.milliseconds)])


def played(agent, actors, factory=make_point_simulator, **options):
    """The records by episode, without their milliseconds; each was handed over once."""
    records = []
    with EvaluationPool(agent, CONFIG, actors, factory=factory, isolate=False, **options) as pool:
        pool.play(EPISODES, lambda episode, record, film: records.append((episode, untimed(record))))
    assert len(records) == len(EPISODES)
    return dict(records)


@pytest.fixture(scope="module")
def alone(agent):
    """One after the other in this process."""
    evaluator = Evaluator(agent, CONFIG, make_point_simulator)
    records = {episode: untimed(evaluator.play(episode, 1)[0]) for episode in EPISODES}
    assert len({tuple(record.latent_steps) for record in records.values()}) > 5  # or there is little to confuse
    return records


def test_records_are_those_of_one_process_whoever_plays_and_whoever_dies(ray_cluster, agent, alone, tmp_path):
    assert played(agent, 2) == alone
    mark = tmp_path / "mark"
    assert played(MortalAgent(agent, mark, number=7), 3) == alone
    assert mark.exists()


def test_records_are_the_same_where_a_server_decides_even_if_it_dies(ray_cluster, agent, alone, tmp_path):
    mark = tmp_path / "mark"
    assert played(MortalAgent(agent, mark, number=11), 1, servers=1) == alone
    assert mark.exists()


def test_one_sick_machine_costs_no_episode(ray_cluster, agent, alone, tmp_path):
    mark = tmp_path / "sick"

    def make(config):
        class Sick(PointSimulator):
            """Dies at every reset in the process that is the first to make one."""

            def reset(self, task, *, initial_state=None, seed=0):
                with contextlib.suppress(FileExistsError), mark.open("x") as stream:
                    stream.write(str(os.getpid()))
                if mark.read_text() in ("", str(os.getpid())):
                    raise SimulatorFailure("the disk is full")
                return super().reset(task, initial_state=initial_state, seed=seed)

        return Sick(config)

    assert played(agent, 2, factory=make) == alone
    assert mark.exists()


def test_simulators_outlast_a_call_and_a_call_can_be_ended_early(ray_cluster, agent, tmp_path):
    factory = functools.partial(make_counted_simulator, tmp_path)
    with EvaluationPool(agent, CONFIG, 1, factory=factory, isolate=False) as pool:
        pool.play([], lambda *_: pytest.fail("nothing was asked for"))
        assert not list(tmp_path.iterdir())
        assert pool.provenance["simulator"] == "point (tests only)"
        first, second = [], []
        pool.play(EPISODES, lambda *each: first.append(each) or len(first) >= 3)
        assert len(first) == 3
        pool.play(EPISODES[:4], lambda *each: second.append(each))
        assert {episode for episode, _, _ in second} == set(EPISODES[:4])
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(ZeroDivisionError):
            pool.play(EPISODES, lambda *_: 1 / 0)
        pool.play(EPISODES[:4], lambda *each: second.append(each))  # what was interrupted disturbs nobody
        assert len(second) == 8
    assert all(record.error is None for _, record, _ in first + second)


def test_a_task_stays_in_quarantine_in_later_calls(ray_cluster, agent):
    records = []
    factory = functools.partial(breaks_at, 1)
    with EvaluationPool(agent, CONFIG, 1, factory=factory, isolate=False) as pool:
        pool.play([Episode(SETTINGS[1], 1, 0)], lambda _, record, __: records.append(record))
        pool.play([Episode(SETTINGS[1], task, 2) for task in (0, 1)], lambda _, record, __: records.append(record))
    assert [(record.task, record.quarantined) for record in records] == [(1, True), (1, True), (0, False)]


def test_servers_need_a_policy(ray_cluster):
    with pytest.raises(InputError, match="policy servers without a policy"):
        EvaluationPool(None, CONFIG, 1, servers=1)
