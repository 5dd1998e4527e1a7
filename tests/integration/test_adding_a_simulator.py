"""The simulator that docs/simulators.md shows, run as it stands there by what runs every simulator."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.placement import PolicyCopy
from actors.rollout import Rollout
from avavla_ray.demonstrations.recording import record
from avavla_ray.errors import InputError
from avavla_ray.evaluation.episode import Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.protocol import play_episode
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.experts.expert import make_expert
from avavla_ray.simulators.registry import identify, make_simulator, suite_spec
from tests.support.fragments import lockstep
from tests.support.policies import some_statistics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulators.md"
SUITE = "puck:PuckSimulator"
CONFIG = SimulatorConfig(suite=SUITE, image_size=32)


def code_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def puck_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "puck.py").write_text("\n".join(code_blocks()), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("puck", None)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = make_simulator(CONFIG)
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent(AvaVlaPolicy(preset("tiny")).eval(), some_statistics())


def test_the_simulator_takes_under_60_lines() -> None:
    lines = code_blocks()[0].splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 120


def test_it_is_a_suite() -> None:
    assert suite_spec(SUITE).instructions == ("push it to the red mark", "push it to the blue mark")
    assert identify(CONFIG) == {}
    with pytest.raises(InputError, match="task 2 does not exist: puck:PuckSimulator has tasks 0 to 1"):
        identify(SimulatorConfig(suite=SUITE, tasks=(2,)))


def test_it_keeps_the_conventions(simulator: Simulator) -> None:
    shown = simulator.reset(0, initial_state=3)
    assert shown.images.shape == (2, 32, 32, 3)
    assert shown.proprio.shape == (8,)
    assert shown.images.std() > 5
    drawn = simulator.reset(0, seed=3)
    assert not np.array_equal(drawn.proprio, shown.proprio)
    pushes = np.tile(np.float32([0.3, -0.2, 0, 0, 0, 0, -1]), (8, 1))
    after = [simulator.run_chunk(pushes, record=True).observation]
    assert [frame.shape for frame in simulator.frames()] == [(32, 32, 3)] * 8
    simulator.reset(1, initial_state=0)
    simulator.run_chunk(-pushes)
    simulator.reset(0, seed=3)
    after += [simulator.run_chunk(part).observation for part in (pushes[:5], pushes[5:])][-1:]
    assert np.array_equal(after[0].images, after[1].images)
    assert np.array_equal(after[0].proprio, after[1].proprio)
    result = simulator.run_chunk(np.zeros((100, 7)))
    assert (result.duration, result.truncated, result.done) == (52, True, True)
    for act, message in (
        (lambda: simulator.run_chunk(pushes), "no episode is running"),
        (lambda: simulator.reset(0, initial_state=9), "initial state 9 does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            act()


def test_a_broken_one_says_so(simulator: Simulator) -> None:
    simulator.reset(0)
    simulator.data.qvel[:] = np.nan
    with pytest.raises(SimulatorFailure, match="diverged"):
        simulator.run_chunk(np.zeros((1, 7)))


def test_its_expert_demonstrates_both_tasks() -> None:
    blind = make_simulator(SimulatorConfig(suite=SUITE, image_size=16, render="none"))
    for task in (0, 1):
        for seed in range(5):
            shown = record(blind, lambda seed: make_expert(blind, seed=seed, noise=0.1), task=task, seed=seed)
            assert shown.success
            assert 5 < len(shown.actions) < 60


def test_a_policy_plays_it(agent: Agent) -> None:
    rollout = Rollout(
        PolicyCopy(agent.policy, agent.statistics, version=0), make_simulator, CONFIG, simulators=2, seed=(1,)
    )
    fragments, report = lockstep(rollout, 10)
    assert report.decisions == 20
    assert report.env_steps > 100
    assert not report.failures
    assert {summary.task for summary in report.finished} == {0, 1}
    assert sum(len(fragment.reward) for fragment in fragments) == 20
    assert rollout.provenance()["simulator"] == "puck"
    rollout.close()


def test_it_is_evaluated(agent: Agent, simulator: Simulator) -> None:
    film = Film()
    setting = ExitSetting(fixed_depth=1)
    first = play_episode(simulator, agent, setting, task=1, initial_state=2, film=film)
    again = play_episode(simulator, agent, setting, task=1, initial_state=2)
    assert first.steps == again.steps == len(film.frames)
    assert first.success == again.success
    assert first.success or first.steps == 60
