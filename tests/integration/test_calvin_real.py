"""The real calvin_env, where there is one: what only its physics and its renderers can show."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.calvin_chains import ExpertActor, play_chain
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.chains import CalvinWithExpert
from avavla_ray.simulators.calvin.initial_states import (
    ROBOT_START,
    published_blocks,
    published_conditions,
    scene_vector,
)
from avavla_ray.simulators.calvin.installation import HOW_TO_GET, find_root
from avavla_ray.simulators.calvin.sequences import Sequence
from avavla_ray.simulators.calvin.tasks import TASKS
from avavla_ray.simulators.experts.expert import make_expert
from tests.support.fake_calvin import calvin_env_at

CONFIG = SimulatorConfig(suite="calvin_d", render="none", image_size=96)
SUITES = ("calvin_a", "calvin_b", "calvin_c", "calvin_d")


def real_root() -> Path | None:
    with contextlib.suppress(InputError):
        return find_root()
    return None


pytestmark = pytest.mark.skipif(
    real_root() is None or importlib.util.find_spec("pybullet") is None,
    reason=f"no calvin_env with PyBullet: {HOW_TO_GET}",
)


@pytest.fixture(autouse=True)
def real() -> Iterator[None]:
    root = real_root()
    assert root is not None
    with calvin_env_at(root):
        yield


@contextlib.contextmanager
def started(config: SimulatorConfig) -> Iterator[CalvinWithExpert]:
    simulator = CalvinWithExpert(config)
    try:
        yield simulator
    finally:
        simulator.close()


def play(simulator: CalvinWithExpert, task: str, **start: int | None) -> list[np.ndarray]:
    """States and pictures of two chunks of random actions."""
    observation = simulator.reset(TASKS.index(task), **start)
    seen = [simulator.robot_obs, simulator.scene_obs, observation.images]
    random = np.random.default_rng(0)
    for _ in range(2):
        result = simulator.run_chunk(random.uniform(-1, 1, (8, 7)))
        seen += [simulator.robot_obs, simulator.scene_obs, result.observation.images]
    return seen


@pytest.mark.parametrize("render", ["none", "fast", "reference"])
def test_episodes_repeat_to_the_last_bit(render: str) -> None:
    with started(replace(CONFIG, render=render)) as simulator:
        first = play(simulator, "stack_block", seed=5)
        play(simulator, "open_drawer", seed=1)
        again = play(simulator, "stack_block", seed=5)
        fixed = play(simulator, "push_red_block_left", initial_state=7)
        simulator.close()
        rebuilt = play(simulator, "push_red_block_left", initial_state=7)
    for one, other in zip([*first, *fixed], [*again, *rebuilt], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suite", SUITES)
def test_every_task_has_a_start_in_every_scene(suite: str) -> None:
    with started(replace(CONFIG, suite=suite)) as simulator:
        for task, name in enumerate(TASKS):
            for start in (None, 31):
                simulator.reset(task, initial_state=start, seed=2)
                assert not simulator.oracle.done(name, simulator.start_info, simulator.env.get_info())
                assert (simulator.robot_obs[14] < 0) == name.startswith(("place_", "stack_"))


def test_published_state_is_loaded_in_scene_d() -> None:
    condition = published_conditions()[150]
    with started(CONFIG) as simulator:
        simulator.begin_sequence(Sequence(condition, ("turn_off_led",) * 5))
        wanted = scene_vector(condition, published_blocks(condition))
        # One physics step lies between.
        np.testing.assert_allclose(simulator.scene_obs, wanted, atol=5e-3)
        np.testing.assert_allclose(simulator.robot_obs, ROBOT_START, atol=5e-3)


def test_the_two_renderers_show_the_same_scene_in_their_own_way() -> None:
    pictures = {}
    for render in ("reference", "fast"):
        with started(replace(CONFIG, render=render)) as simulator:
            pictures[render] = simulator.reset(0, initial_state=0).images.astype(float)
    noise = np.mean((pictures["reference"] - pictures["fast"]) ** 2)
    assert 15 < 10 * np.log10(255**2 / noise) < 35
    for images in pictures.values():
        assert images.std(axis=(1, 2)).min() > 20  # neither camera sees one colour


def states_of_a_grasp(simulator: CalvinSimulator, actions: list[np.ndarray]) -> list[np.ndarray]:
    """By the expert where there are no actions yet, which are then what it did."""
    simulator.reset(TASKS.index("lift_red_block_table"), seed=5)
    script = iter(list(actions)) if actions else None
    expert = make_expert(simulator, seed=5) if script is None else None
    states, done = [simulator.robot_obs, simulator.scene_obs], False
    while not done:
        action = expert.act() if expert is not None else next(script)
        actions += [action] if expert is not None else []
        done = simulator.run_chunk(action[None]).done
        states += [simulator.robot_obs, simulator.scene_obs]
    return states


def test_looking_or_not_makes_no_difference_to_states() -> None:
    """The fast renderer's robot looks like the other one, and is the other one in all else: it grasps alike."""
    actions: list[np.ndarray] = []
    with started(CONFIG) as simulator:
        blind = states_of_a_grasp(simulator, actions)
    with started(replace(CONFIG, render="fast")) as simulator:
        seen = states_of_a_grasp(simulator, actions)
        with simulator.unseen():
            unseen = states_of_a_grasp(simulator, actions)
    assert len(blind) > 60
    for states in (seen, unseen):
        for one, other in zip(states, blind, strict=True):
            np.testing.assert_array_equal(one, other)


def test_provenance_tells_the_versions_apart() -> None:
    with started(CONFIG) as simulator:
        said = simulator.provenance()
    assert said["calvin_env_behaves_like"] in ("main", "pinned")
    if said["calvin_env_version"] != "other":
        assert said["calvin_env_behaves_like"] == said["calvin_env_version"]
    assert len(said["calvin_env_digest"]) == 64


def test_experts_play_a_chain() -> None:
    first = next(condition for condition in published_conditions() if condition["red_block"] == "table")
    chain = Sequence(first, ("open_drawer", "lift_red_block_table", "place_in_drawer", "turn_on_led", "close_drawer"))
    with started(CONFIG) as simulator:
        record = play_chain(simulator, ExpertActor(), 0, chain)
    assert record.error is None
    assert record.completed == 5, record.steps
