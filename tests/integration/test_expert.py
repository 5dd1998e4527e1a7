"""The scripted expert on real LIBERO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.experts.articulation import drawer_of
from avavla_ray.simulators.experts.expert import NoExpert, make_expert
from avavla_ray.simulators.experts.goals import skill_for
from avavla_ray.simulators.experts.report import ReportSettings, main, run_task
from avavla_ray.simulators.experts.scene import Scene
from avavla_ray.simulators.libero.adapter import LiberoSimulator

pytestmark = pytest.mark.libero


@pytest.fixture
def simulator():
    simulator = LiberoSimulator(SimulatorConfig(suite="libero_object", render="none"))
    yield simulator
    simulator.close()


# A can, a flat packet; a bowl in a drawer, on a ramekin, and far up on the cabinet.
@pytest.mark.parametrize(("suite", "task"), [("libero_object", 0), ("libero_object", 6), ("libero_spatial", 4),
                                             ("libero_spatial", 5), ("libero_spatial", 9)])  # fmt: skip
def test_it_solves_published_initial_states(suite: str, task: int) -> None:
    report = run_task(ReportSettings(suite=suite, episodes=2), task)
    assert report.failures == []
    assert len(report.steps) == 2


# Open a drawer, turn a knob on and off, push a drawer shut, fill one that has to be opened first, take a pot by some
# part of it, put two things in two places.
@pytest.mark.parametrize(("suite", "task"), [
    ("libero_goal", 0), ("libero_goal", 7), ("libero_90", 39), ("libero_90", 0), ("libero_goal", 3), ("libero_90", 19),
    ("libero_10", 6),
])  # fmt: skip
def test_each_skill_and_their_compositions(suite: str, task: int) -> None:
    report = run_task(ReportSettings(suite=suite, episodes=1), task)
    assert (report.failures, report.no_expert) == ([], "")


@pytest.mark.parametrize(("suite", "task", "why"), [
    ("libero_goal", 5, "too flat"), ("libero_90", 6, "too low"), ("libero_90", 33, "close microwave_1"),
    ("libero_90", 40, "from above"),
])  # fmt: skip
def test_a_task_without_an_expert_says_why(suite: str, task: int, why: str) -> None:
    report = run_task(ReportSettings(suite=suite, episodes=1), task)
    assert report.episodes == 0
    assert "no scripted expert" in report.no_expert
    assert why in report.no_expert
    assert "no expert" in report.row()


@pytest.mark.parametrize(("suite", "task"), [("libero_object", 3), ("libero_spatial", 7)])
def test_it_solves_drawn_starts(suite: str, task: int) -> None:
    report = run_task(ReportSettings(suite=suite, episodes=2, drawn=True), task)
    assert report.failures == []


@pytest.mark.real_geometry
@pytest.mark.parametrize(("suite", "task", "episodes"), [("libero_object", 4, 1), ("libero_spatial", 4, 1),
                                                         ("libero_spatial", 7, 3)])  # fmt: skip
def test_it_solves_the_originals(suite: str, task: int, episodes: int, real_assets: Path) -> None:
    report = run_task(ReportSettings(suite=suite, assets=str(real_assets), episodes=episodes), task)
    assert report.failures == []


def test_a_drawer_that_is_left_half_shut_costs_the_attempt_and_no_more() -> None:
    simulator = LiberoSimulator(SimulatorConfig(suite="libero_10", render="none"))
    simulator.reset(3, initial_state=0)
    expert = make_expert(simulator)
    drawer = drawer_of(Scene.of(simulator), "white_cabinet_1_bottom_region")
    assert drawer is not None
    simulator.data.qpos[drawer._address] *= 0.3
    expert.skill.finished = True
    action = expert.act()
    assert expert.phase_name == "at a loss"
    np.testing.assert_allclose(action, [0, 0, 0, 0, 0, 0, -1], atol=1e-5)
    assert not simulator.run_chunk(np.tile(action, (1000, 1))).success
    simulator.close()


def test_actions_are_normalised_and_repeat_with_the_seed(simulator) -> None:
    def actions(seed: int, noise: float) -> np.ndarray:
        simulator.reset(1, initial_state=0)
        expert = make_expert(simulator, seed=seed, noise=noise)
        taken = []
        for _ in range(60):
            taken.append(expert.act())
            simulator.run_chunk(taken[-1][None])
        return np.array(taken)

    quiet, noisy = actions(0, 0.0), actions(0, 0.1)
    assert quiet.dtype == noisy.dtype == np.float32
    assert quiet.shape == (60, 7)
    assert np.abs(quiet).max() <= 1
    assert np.abs(noisy).max() <= 1
    assert set(np.unique(quiet[:, 6])) == {-1.0, 1.0}
    assert np.array_equal(quiet, actions(5, 0.0))
    assert np.array_equal(noisy, actions(0, 0.1))
    assert not np.array_equal(noisy, actions(1, 0.1))


def test_it_still_succeeds_with_noise(simulator) -> None:
    simulator.reset(9, initial_state=0)
    expert = make_expert(simulator, seed=0, noise=0.1)
    result = simulator.run_chunk(expert.act()[None])
    while not result.done:
        result = simulator.run_chunk(expert.act()[None])
    assert result.success


def test_it_tries_again_when_the_object_is_taken_out_of_its_hand(simulator) -> None:
    simulator.reset(1, initial_state=0)
    expert = make_expert(simulator)
    while expert.phase_name != "carry":
        simulator.run_chunk(expert.act()[None])
    joint = simulator.model.joint("cream_cheese_1_joint0")
    simulator.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = [0.0, -0.02, 0.01, 0, 0, 0, 1]
    simulator.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0
    phases = set()
    result = simulator.run_chunk(expert.act()[None])
    while not result.done:
        phases.add(expert.phase_name)
        result = simulator.run_chunk(expert.act()[None])
    assert "reach" in phases
    assert result.success


def test_what_it_cannot_do_is_said_in_one_line(simulator) -> None:
    with pytest.raises(InputError, match="reset it"):
        make_expert(simulator)
    simulator.reset(0, initial_state=0)
    with pytest.raises(InputError, match="negative"):
        make_expert(simulator, noise=-1.0)
    scene = Scene.of(simulator)
    for goal in (["open", "basket_1"], ["turnon", "basket_1"], ["on", "nothing_1", "basket_1"], ["in", "milk_1", "x"]):
        with pytest.raises(NoExpert, match="no scripted expert"):
            skill_for(scene, goal)


def test_the_report_prints_a_row_a_task_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(ReportSettings(tasks=(5,), episodes=1, json=tmp_path / "report.json", markdown=tmp_path / "report.md"))
    printed = capsys.readouterr().out
    assert "pick up the tomato sauce" in printed
    assert "total 1/1 = 100.0%" in printed
    assert "| 5 | 1/1 |" in (tmp_path / "report.md").read_text()
    assert '"successes": 1' in (tmp_path / "report.json").read_text()
