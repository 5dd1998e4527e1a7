"""Stored states of LIBERO shown again, with the furniture where the recording had it, and acted on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.replay import LiberoReplay, body_poses
from tests.support.libero_scenes import random_actions

pytestmark = pytest.mark.libero
BOWL_IN_DRAWER = 0


@pytest.fixture(scope="module")
def simulator() -> Iterator[LiberoReplay]:
    made = LiberoReplay(SimulatorConfig(suite="libero_goal", image_size=64))
    yield made
    made.close()


def test_an_episode_can_be_entered_anywhere(simulator):
    simulator.reset(BOWL_IN_DRAWER, seed=3)
    actions, states = random_actions(12), []
    model_file = simulator.env.sim.model.get_xml()
    places = simulator.model.body_pos.copy()
    for action in actions:
        states.append(simulator.env.get_sim_state().copy())
        simulator.run_chunk(action[None])
    states.append(simulator.env.get_sim_state().copy())

    simulator.reset(BOWL_IN_DRAWER, seed=4)
    assert np.abs(simulator.model.body_pos - places).max() > 1e-4, "furniture is drawn"
    elsewhere = simulator.show(states[0])
    simulator.begin(BOWL_IN_DRAWER, body_poses(model_file))
    # MuJoCo saves six digits.
    np.testing.assert_allclose(simulator.model.body_pos, places, atol=1e-5)
    assert not np.array_equal(simulator.show(states[0]).images, elsewhere.images)
    for last in (1, 5, 11):
        simulator.show(states[last])
        assert not simulator.succeeded()
        assert not simulator.act(actions[: last + 1])
        reached = simulator.env.get_sim_state()
        np.testing.assert_allclose(
            reached[1 : 1 + simulator.model.nq], states[last + 1][1 : 1 + simulator.model.nq], atol=1e-5
        )


def test_what_is_shown_depends_on_the_state_alone(simulator):
    simulator.reset(BOWL_IN_DRAWER, seed=4)
    state = simulator.env.get_sim_state().copy()
    poses = body_poses(simulator.env.sim.model.get_xml())
    simulator.begin(BOWL_IN_DRAWER, poses)
    first = simulator.show(state)
    simulator.act(random_actions(4))
    simulator.begin(BOWL_IN_DRAWER, poses)
    again = simulator.show(state)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.proprio, again.proprio)


def test_another_model_is_refused(simulator):
    with pytest.raises(InputError, match=r"^missing: model_file has no body wooden_cabinet_1_\w+ for wooden_cabinet_1"):
        simulator.begin(
            BOWL_IN_DRAWER, body_poses("<mujoco><worldbody><body name='x' pos='1 2 3'/></worldbody></mujoco>")
        )
    with pytest.raises(InputError, match=r"^missing: model_file, and nothing else says where \w+ stood"):
        simulator.begin(BOWL_IN_DRAWER, None)
    broken = ("pos='here'", "pos='1 2'", "quat='nan 0 0 0'", "euler='0 0 1'")
    for model in ("<mujoco>", *(f"<mujoco><body name='x' {place}/></mujoco>" for place in broken)):
        with pytest.raises(InputError, match="^not readable: model_file is no MuJoCo model"):
            body_poses(model)
