"""The reference renderer gives stock LIBERO's states and pictures, bit for bit; the others to a stated tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.libero.adapter import LiberoSimulator, axis_angle
from avavla_ray.simulators.libero.installation import prepare
from avavla_ray.simulators.libero.sampling import SamplingClock
from tests.support.libero_scenes import psnr, random_actions, stock_episode

pytestmark = pytest.mark.libero

# A drawer and a knob with joints, fixtures that are placed anew at each reset, and a bowl inside the drawer.
SUITE, TASK, SEED = "libero_spatial", 4, 7
CHUNK = 5

Make = Callable[..., LiberoSimulator]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[LiberoSimulator] = []

    def build(render: str, assets: str = "bundled", suite: str = SUITE) -> LiberoSimulator:
        made.append(LiberoSimulator(SimulatorConfig(suite=suite, assets=assets, render=render, image_size=64)))
        return made[-1]

    yield build
    for simulator in made:
        simulator.close()


# The other scene rests on contacts that remember the solver's last answer; it shows a wrong warm start.
@pytest.mark.parametrize(
    ("assets", "suite", "task"),
    [
        ("bundled", SUITE, TASK),
        ("official", "libero_object", 0),
        pytest.param("official", SUITE, TASK, marks=pytest.mark.long),
        pytest.param("bundled", "libero_object", 0, marks=pytest.mark.long),
    ],
)
def test_states_are_stock_over_100_random_steps(
    make: Make, assets: str, suite: str, task: int, request: pytest.FixtureRequest
) -> None:
    if assets == "official":
        request.getfixturevalue("real_assets")
    # First small movements in the air, then 100 that press the hand into things.
    free = 40
    gently = random_actions(free, seed=2) * np.array([0.1] * 6 + [1], np.float32)
    actions = np.concatenate([gently, random_actions(100)])
    ours = {render: make(render, assets, suite) for render in ("fast", "reference", "none")}
    with stock_episode(ours["fast"], task, 0, SEED, cameras=False) as (stock, _):
        expected = [stock.get_sim_state()]
        for action in actions:
            stock.step(action)
            expected.append(stock.get_sim_state())
    assert np.abs(expected[-1][1:8] - expected[0][1:8]).max() > 0.1
    drift = {}
    for render, simulator in ours.items():
        # Another episode first: nothing of it may be left.
        simulator.reset(task, initial_state=3, seed=1)
        simulator.run_chunk(random_actions(8, seed=1))
        simulator.reset(task, initial_state=0, seed=SEED)
        states = [simulator.env.get_sim_state()]
        for start in range(0, len(actions), CHUNK):
            simulator.run_chunk(actions[start : start + CHUNK])
            states.append(simulator.env.get_sim_state())
        drift[render] = np.abs(np.array(states) - expected[::CHUNK])
    assert not drift["reference"].any()
    assert np.array_equal(drift["fast"], drift["none"])
    joints = drift["fast"][:, 1:8].max(axis=1)
    assert joints[: free // CHUNK + 1].max() < 1e-12
    assert joints.max() < 2e-5


def test_the_sampling_clock_is_that_of_a_robosuite_observable() -> None:
    prepare()
    from robosuite.utils.observables import Observable, sensor

    looks = 0

    @sensor(modality="x")
    def look(cache: dict) -> float:
        nonlocal looks
        looks += 1
        return 0.0

    for history in ((), (True,), (True, True), (True, False, False, True), (False,) * 24 + (True,)):
        observable, clock = Observable("x", look, sampling_rate=20), SamplingClock(1 / 20)
        for _ in range(2):
            observable.reset()
            clock.restart()
            for force in (*history, *(False,) * 330):
                before = looks
                observable.update(0.002, {}, force)
                assert clock.tick(0.002, force) == (looks > before)


def test_reference_pictures_and_proprioception_are_stock_although_most_are_never_rendered(make: Make) -> None:
    actions = random_actions(20)
    reference, fast = make("reference"), make("fast")
    with stock_episode(reference, TASK, 0, SEED, cameras=True) as (stock, observation):
        expected = [observation] + [stock.step(action)[0] for action in actions]
    for simulator in (reference, fast):
        observations = [simulator.reset(TASK, initial_state=0, seed=SEED)]
        observations += [simulator.run_chunk(actions[i : i + CHUNK]).observation for i in range(0, 20, CHUNK)]
        for theirs, ours in zip(expected[::CHUNK], observations, strict=True):
            pictures = np.stack([theirs["agentview_image"], theirs["robot0_eye_in_hand_image"]])[:, ::-1, ::-1]
            if simulator is reference:
                assert np.array_equal(ours.images, pictures)
            else:
                assert 22 < psnr(ours.images, pictures) < 60
            proprio = np.concatenate(
                [theirs["robot0_eef_pos"], axis_angle(theirs["robot0_eef_quat"]), theirs["robot0_gripper_qpos"]]
            )
            assert np.array_equal(ours.proprio, proprio.astype(np.float32))


@pytest.mark.parametrize("task", [TASK, 9])
def test_drawn_objects_are_stock_draws_whatever_was_drawn_before(make: Make, task: int) -> None:
    simulator = LiberoSimulator(replace(make("fast").config, settle_steps=0))
    with stock_episode(simulator, task, None, SEED, cameras=False) as (stock, _):
        expected, fixtures = stock.get_sim_state(), stock.sim.model._model.body_pos.copy()
    simulator.reset(task, seed=1)
    simulator.reset(task, seed=SEED)
    # The arm's noise is ours; everything behind the robot's nine joints is LIBERO's.
    assert np.array_equal(simulator.env.get_sim_state()[1 + 9 :], expected[1 + 9 :])
    assert np.array_equal(simulator.model.body_pos, fixtures)
    simulator.close()


def test_success_is_stock_success(make: Make) -> None:
    simulator = make("fast", suite="libero_object")
    with stock_episode(simulator, 7, 0, SEED, cameras=False) as (stock, _):
        simulator.reset(7, initial_state=0, seed=SEED)
        # Half-way into the basket, from where it falls in: the predicate turns true at some step.
        for env in (stock, simulator.env):
            above = env.sim.data.body_xpos[env.env.obj_body_id["basket_1"]] + [0.0, 0.0, 0.3]
            env.sim.data.set_joint_qpos("milk_1_joint0", np.concatenate([above, [1.0, 0.0, 0.0, 0.0]]))
        action = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
        for step in range(40):
            _, reward, done, _ = stock.step(action)
            result = simulator.run_chunk(action[None])
            assert (result.success, result.reward) == (done, reward), step
            if done:
                break
        assert done
        assert step > 0


def test_the_fast_model_differs_in_looks_only(make: Make) -> None:
    fast, reference = make("fast"), make("reference")
    for simulator in (fast, reference):
        simulator.reset(TASK, initial_state=0, seed=SEED)
    assert fast.model.nmeshface < reference.model.nmeshface / 3
    for name in ("body_mass", "body_inertia", "body_ipos", "dof_armature", "actuator_gear", "jnt_range", "qpos0"):
        assert np.array_equal(getattr(fast.model, name), getattr(reference.model, name)), name
    solid = reference.model.geom_group == 0
    assert np.array_equal(solid, fast.model.geom_group == 0)
    for name in ("geom_pos", "geom_quat", "geom_size", "geom_friction", "geom_type"):
        assert np.array_equal(getattr(fast.model, name)[solid], getattr(reference.model, name)[solid]), name


def test_leaving_out_what_cannot_be_seen_changes_no_pixel(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = make("fast")
    simulator.reset(TASK, initial_state=0, seed=SEED)
    renderer, cameras = simulator.env.env._renderer, simulator.env.env._camera_ids

    def pictures() -> np.ndarray:
        drawn = np.empty((2, 64, 64, 3), np.uint8)
        for camera, picture in zip(cameras, drawn, strict=True):
            renderer.draw(camera, picture)
        return drawn

    model = simulator.model
    groups, site_groups = model.geom_group.copy(), model.site_group.copy()
    for actions in np.split(random_actions(40), 5):
        simulator.run_chunk(actions)
        assert len(renderer.out_of_view(cameras[1])) > 10
        ours = pictures()
        with monkeypatch.context() as patched:
            patched.setattr(renderer, "_describe", super(type(renderer), renderer)._describe)
            assert np.array_equal(ours, pictures())
    assert np.array_equal(model.geom_group, groups)
    assert np.array_equal(model.site_group, site_groups)


def test_a_site_that_becomes_visible_is_drawn_and_hidden_ones_are_not(make: Make) -> None:
    simulator = make("fast")
    simulator.reset(TASK, initial_state=0, seed=SEED)
    import mujoco

    renderer, camera, model = simulator.env.env._renderer, simulator.env.env._camera_ids[0], simulator.model
    picture, with_site = np.empty((2, 64, 64, 3), np.uint8)

    def sites_drawn() -> int:
        described = (renderer._scene.geoms[index] for index in range(renderer._scene.ngeom))
        return sum(geom.objtype == mujoco.mjtObj.mjOBJ_SITE for geom in described)

    renderer.draw(camera, picture)
    assert sites_drawn() == 0
    site = model.site("gripper0_grip_site").id
    model.site_rgba[site], model.site_size[site] = (0, 1, 0, 1), 0.1
    renderer.draw(camera, with_site)
    assert sites_drawn() == 1
    assert (picture != with_site).any()
