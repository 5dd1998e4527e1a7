"""The scripted experts in the real CALVIN; skipped where there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.calvin_chains import ExpertActor, play_chain
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.calvin.chains import CalvinWithExpert
from avavla_ray.simulators.calvin.initial_states import published_conditions
from avavla_ray.simulators.calvin.installation import find_root
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.experts.expert import make_expert
from tests.support.fake_calvin import calvin_env_at

CONFIG = SimulatorConfig(suite="calvin_d", render="none", image_size=32)
# One of each family of skills.
FAMILIES = (
    "rotate_blue_block_left", "push_pink_block_right", "move_slider_left", "open_drawer", "close_drawer",
    "lift_red_block_table", "lift_pink_block_slider", "lift_blue_block_drawer", "place_in_slider", "place_in_drawer",
    "stack_block", "unstack_block", "turn_on_lightbulb", "turn_off_lightbulb", "turn_on_led", "push_into_drawer",
)  # fmt: skip


def absence() -> str:
    """Why there is no real CALVIN here; empty where there is one."""
    try:
        find_root()
    except InputError as error:
        return str(error)
    return "" if importlib.util.find_spec("pybullet") else "PyBullet is not installed: pip install '.[calvin]'"


pytestmark = pytest.mark.skipif(bool(absence()), reason=absence())


@pytest.fixture(scope="module")
def simulators() -> Iterator[dict[str, CalvinWithExpert]]:
    """One a suite, closed before the next is opened: a process holds only one CALVIN."""
    made: dict[str, CalvinWithExpert] = {}
    with calvin_env_at(find_root()):
        yield made
        for simulator in made.values():
            simulator.close()


def in_scene(simulators: dict[str, CalvinWithExpert], suite: str = "calvin_d") -> CalvinWithExpert:
    for name, simulator in simulators.items():
        if name != suite:
            simulator.close()
    if suite not in simulators:
        simulators[suite] = CalvinWithExpert(replace(CONFIG, suite=suite))
    return simulators[suite]


def play(simulator: CalvinWithExpert, task: str, seed: int, noise: float = 0.0) -> tuple[bool, list[np.ndarray]]:
    """Whether the expert succeeded from a drawn start, and its actions."""
    simulator.reset(TASKS.index(task), seed=seed)
    expert = make_expert(simulator, seed=seed, noise=noise)
    actions = []
    while True:
        actions.append(expert.act())
        assert expert.phase_name
        result = simulator.run_chunk(actions[-1][None])
        if result.done:
            return result.success, actions


@pytest.mark.parametrize("task", FAMILIES)
def test_every_skill_succeeds_from_a_drawn_start(simulators: dict[str, CalvinWithExpert], task: str) -> None:
    success, actions = play(in_scene(simulators), task, seed=3)
    assert success
    assert all(action.shape == (7,) and action.dtype == np.float32 for action in actions)
    assert np.abs(actions).max() <= 1.0
    assert {float(action[6]) for action in actions} <= {-1.0, 1.0}


def test_noise_is_seeded_and_does_not_stop_the_expert(simulators: dict[str, CalvinWithExpert]) -> None:
    simulator = in_scene(simulators)
    success, noisy = play(simulator, "lift_red_block_table", seed=1, noise=0.1)
    assert success
    np.testing.assert_array_equal(noisy, play(simulator, "lift_red_block_table", seed=1, noise=0.1)[1])
    quiet = play(simulator, "lift_red_block_table", seed=1)[1]
    assert not np.array_equal(noisy[0], quiet[0])


@pytest.mark.parametrize("suite", ["calvin_a", "calvin_b", "calvin_c"])
@pytest.mark.parametrize("task", ["turn_on_lightbulb", "move_slider_right", "turn_off_led", "open_drawer"])
def test_furniture_is_found_in_the_other_scenes(simulators: dict[str, CalvinWithExpert], suite: str, task: str) -> None:
    assert play(in_scene(simulators, suite), task, seed=0)[0]


def test_a_chain_hands_over_from_skill_to_skill(simulators: dict[str, CalvinWithExpert]) -> None:
    """The push must leave the block untouched, or the next task could never count."""
    tasks = ("push_red_block_right", "push_into_drawer", "lift_red_block_drawer", "place_in_slider", "close_drawer")
    condition = next(
        condition
        for condition in published_conditions()
        if condition["red_block"] == "table" and "table" not in (condition["blue_block"], condition["pink_block"])
        and condition["drawer"] == "open"
    )  # fmt: skip
    record = play_chain(in_scene(simulators), ExpertActor(), 0, Sequence(condition, tasks))
    assert record.error is None
    assert record.completed == 5, record.steps


def test_what_it_refuses(simulators: dict[str, CalvinWithExpert]) -> None:
    simulator = in_scene(simulators)
    simulator.close()
    with pytest.raises(InputError, match="reset it before"):
        make_expert(simulator)
    simulator.reset(0)
    with pytest.raises(InputError, match="noise -0.1 is negative"):
        make_expert(simulator, noise=-0.1)
