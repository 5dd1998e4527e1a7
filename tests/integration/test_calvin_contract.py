"""What the CALVIN adapter promises, against a fake calvin_env (tests/support/fake_calvin_env): no physics, same API."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import PlaysUnseen, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.calvin.adapter import LOADS_PER_CLIENT, CalvinSimulator
from avavla_ray.simulators.calvin.initial_states import ROBOT_START
from avavla_ray.simulators.calvin.installation import import_module
from avavla_ray.simulators.calvin.tasks import INSTRUCTIONS, TASKS
from avavla_ray.simulators.registry import identify, make_simulator
from tests.support.fake_calvin import BUTTON, FAKE_ROOT, calvin_env_at, towards

CONFIG = SimulatorConfig(suite="calvin_d", image_size=64)
LED_ON, LED_OFF, OPEN_DRAWER = (TASKS.index(name) for name in ("turn_on_led", "turn_off_led", "open_drawer"))
STILL = np.array([[0, 0, 0, 0, 0, 0, 1.0]])


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with calvin_env_at(FAKE_ROOT):
        yield


@pytest.fixture
def simulator() -> Iterator[CalvinSimulator]:
    made = make_simulator(CONFIG)
    assert isinstance(made, CalvinSimulator)
    yield made
    made.close()


def fake_module() -> Any:
    return sys.modules["calvin_env.envs.play_table_env"]


def test_observation_has_the_promised_shapes(simulator: CalvinSimulator) -> None:
    observation = simulator.reset(LED_ON, seed=1)
    assert observation.images.shape == (2, 64, 64, 3)
    assert observation.images.dtype == np.uint8
    assert observation.proprio.dtype == np.float32
    expected = [*simulator.robot_obs[:7], simulator.robot_obs[14]]
    expected[3] %= 2 * np.pi
    np.testing.assert_allclose(observation.proprio, expected, rtol=1e-6)
    assert observation.instruction == INSTRUCTIONS["turn_on_led"]
    assert (simulator.robot_obs.shape, simulator.scene_obs.shape) == ((15,), (24,))


def test_an_episode_may_be_played_unseen(simulator: CalvinSimulator) -> None:
    assert isinstance(simulator, PlaysUnseen)
    seen = simulator.reset(LED_ON, seed=1)
    with pytest.raises(RuntimeError, match="stop"), simulator.unseen():
        unseen = simulator.reset(LED_ON, seed=1)
        assert not unseen.images.any()
        np.testing.assert_array_equal(unseen.proprio, seen.proprio)
        assert not simulator.run_chunk(STILL).observation.images.any()
        raise RuntimeError("stop")
    assert simulator.run_chunk(STILL).observation.images.any()


@pytest.mark.parametrize(
    ("render", "size", "sides"),
    [("fast", 64, [64, 64]), ("fast", 128, [128, 84]), ("fast", 224, [200, 84]), ("reference", 64, [200, 84])],
)
def test_only_fast_pictures_are_drawn_as_small_as_they_are_wanted(render: str, size: int, sides: list[int]) -> None:
    with contextlib.closing(CalvinSimulator(replace(CONFIG, render=render, image_size=size))) as simulator:
        assert [(camera.width, camera.height) for camera in simulator.env.cameras] == [(side, side) for side in sides]
        assert simulator.reset(LED_ON, seed=1).images.shape == (2, size, size, 3)


def test_fast_pictures_have_an_identity_of_their_own() -> None:
    """Demonstrations that were begun with another robot are not gone on with."""
    fast, reference, blind = (identify(replace(CONFIG, render=render)) for render in ("fast", "reference", "none"))
    assert fast == reference | {"robot_meshes": fast["robot_meshes"]}
    assert reference == blind


@pytest.mark.parametrize("task", ["turn_on_led", "stack_block", "unstack_block", "lift_pink_block_drawer"])
def test_a_seed_is_a_start(task: str, simulator: CalvinSimulator) -> None:
    def start(seed: int) -> np.ndarray:
        simulator.reset(TASKS.index(task), seed=seed)
        return np.concatenate([simulator.robot_obs, simulator.scene_obs])

    first, other = start(3), start(4)
    np.testing.assert_array_equal(start(3), first)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("suite", ["calvin_a", "calvin_b", "calvin_c", "calvin_d"])
def test_every_task_has_fixed_and_drawn_starts_in_which_it_is_not_yet_done(suite: str) -> None:
    simulator = CalvinSimulator(replace(CONFIG, suite=suite, render="none"))
    for task, name in enumerate(TASKS):
        for start in (None, 0, 47):
            simulator.reset(task, initial_state=start, seed=11)
            assert not simulator.oracle.done(name, simulator.start_info, simulator.env.get_info())
    simulator.close()


def test_drawn_starts_are_not_the_published_ones(simulator: CalvinSimulator) -> None:
    task = TASKS.index("push_red_block_left")
    published = []
    for index in range(48):
        simulator.reset(task, initial_state=index)
        published.append(simulator.scene_obs)
    for seed in range(20):
        simulator.reset(task, seed=seed)
        assert not np.array_equal(simulator.robot_obs[7:14], ROBOT_START[7:14])
        assert min(np.abs(simulator.scene_obs[6:] - scene[6:]).max() for scene in published) > 1e-3


def test_success_ends_the_chunk_and_the_episode(simulator: CalvinSimulator) -> None:
    simulator.reset(LED_ON, initial_state=0)
    steps = 0
    done = False
    while not done:
        chunk = np.repeat(towards(simulator, BUTTON), 8, axis=0)
        result = simulator.run_chunk(chunk)
        steps, done = steps + result.duration, result.done
    assert result.success
    assert not result.truncated
    assert result.reward == 1.0
    assert result.duration <= 8
    assert steps < 100
    with pytest.raises(InputError, match="no episode is running"):
        simulator.run_chunk(STILL)


def test_time_runs_out_after_360_steps(simulator: CalvinSimulator) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    durations = []
    done = False
    while not done:
        result = simulator.run_chunk(np.repeat(STILL, 50, axis=0))
        durations.append(result.duration)
        done = result.done
    assert (sum(durations), durations[-1]) == (360, 10)
    assert result.truncated
    assert not result.success


@pytest.mark.parametrize(("value", "command"), [(-1, -1), (-0.01, -1), (0, 1), (0.3, 1), (1, 1)])
def test_zero_or_more_opens_the_hand(value: float, command: int, simulator: CalvinSimulator) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    result = simulator.run_chunk(np.array([[0, 0, 0, 0, 0, 0, value]]))
    assert simulator.robot_obs[14] == command
    assert result.observation.proprio[7] == command


def test_hand_starts_open_whatever_the_last_episode_did(simulator: CalvinSimulator) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    simulator.run_chunk(-STILL)
    assert simulator.reset(OPEN_DRAWER, initial_state=0).proprio[7] == 1


def test_a_full_action_moves_two_centimetres_and_more_is_clipped(simulator: CalvinSimulator) -> None:
    for size in (1.0, 7.0):
        simulator.reset(OPEN_DRAWER, initial_state=0)
        before = simulator.robot_obs
        simulator.run_chunk(np.array([[size, 0, -size, 0, 0, size, 1]]))
        moved = simulator.robot_obs - before
        np.testing.assert_allclose(moved[:6], [0.02, 0, -0.02, 0, 0, 0.05], atol=1e-9)


@pytest.mark.parametrize("version", ["main", "pinned"])
def test_both_versions_are_told_apart_and_leave_the_actions_alone(version: str) -> None:
    make_simulator(CONFIG).close()
    fake_module().VERSION = version
    simulator = CalvinSimulator(CONFIG)
    assert simulator.provenance()["calvin_env_behaves_like"] == version
    simulator.reset(OPEN_DRAWER, seed=0)
    chunk = np.full((4, 7), 0.5)
    simulator.run_chunk(chunk)
    np.testing.assert_array_equal(chunk, np.full((4, 7), 0.5))
    simulator.close()


def test_cameras_render_at_decisions_only(simulator: CalvinSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    rendered = []
    base = fake_module().PlayTableSimEnv
    render = base.get_camera_obs
    monkeypatch.setattr(base, "get_camera_obs", lambda self: rendered.append(1) or render(self))
    simulator.run_chunk(np.repeat(STILL, 8, axis=0))
    assert len(rendered) == 1
    simulator.run_chunk(np.repeat(STILL, 8, axis=0), record=True)
    assert len(rendered) == 1 + 9
    frames = simulator.frames()
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 8
    assert simulator.frames() == []


def test_without_a_renderer_there_are_no_cameras() -> None:
    simulator = CalvinSimulator(replace(CONFIG, render="none"))
    assert not simulator.reset(OPEN_DRAWER, seed=0).images.any()
    assert simulator.env.cameras == []
    assert simulator.provenance()["renderer"] == "none"
    simulator.close()


def test_the_egl_environment_is_built_anew_after_some_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avavla_ray.simulators.calvin.environment._check_egl", lambda: None)
    simulator = CalvinSimulator(replace(CONFIG, render="reference"))
    assert simulator.provenance()["renderer"] == "egl"
    environments, states = [], []
    for _ in range(2 * LOADS_PER_CLIENT):
        simulator.reset(OPEN_DRAWER, seed=4)
        environments.append(simulator.env)
        states.append(simulator.scene_obs)
    changes = [index for index in range(1, len(environments)) if environments[index] is not environments[index - 1]]
    assert changes == [LOADS_PER_CLIENT]
    np.testing.assert_array_equal(states, [states[0]] * len(states))
    simulator.close()


def test_a_renderer_that_does_not_load_is_an_error_and_not_another_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = replace(CONFIG, render="reference")
    with monkeypatch.context() as patch:
        patch.setattr("avavla_ray.simulators.calvin.environment._check_egl", lambda: None)
        import_module("calvin_env.envs.play_table_env", FAKE_ROOT)
        # What calvin_env does when PyBullet has no such plugin.
        patch.setattr(fake_module().PlayTableSimEnv, "__init__", lambda self, **_: sys.exit())
        with pytest.raises(InputError, match="cannot load its EGL renderer"):
            CalvinSimulator(reference)
    load = ctypes.CDLL

    def no_egl(name: str | None) -> ctypes.CDLL:
        if name == "libEGL.so.1":
            raise OSError(name)
        return load(name)

    monkeypatch.setattr(ctypes, "CDLL", no_egl)
    with pytest.raises(InputError, match="apt-get install libegl1"):
        CalvinSimulator(reference)


def test_a_second_environment_in_the_process_is_refused(simulator: CalvinSimulator) -> None:
    with pytest.raises(InputError, match="already runs a CALVIN environment"):
        CalvinSimulator(CONFIG)
    simulator.close()
    CalvinSimulator(CONFIG).close()


@pytest.mark.parametrize("action", [np.zeros((1, 6)), np.zeros((0, 7)), np.zeros(7), np.full((1, 7), np.nan)])
def test_bad_actions_are_refused(action: np.ndarray, simulator: CalvinSimulator) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    with pytest.raises(InputError, match="actions"):
        simulator.run_chunk(action)


def test_what_does_not_exist_is_refused(simulator: CalvinSimulator) -> None:
    with pytest.raises(InputError, match="tasks 0 to 33"):
        simulator.reset(34)
    with pytest.raises(InputError, match="0 to 47"):
        simulator.reset(0, initial_state=48)
    with pytest.raises(InputError, match="no episode is running"):
        simulator.run_chunk(STILL)
    with pytest.raises(InputError, match="begin a sequence"):
        simulator.next_task()


@pytest.mark.parametrize("broken", ["engine", "state"])
def test_a_broken_engine_is_a_failure_and_the_next_reset_builds_anew(
    broken: str, simulator: CalvinSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    environment = simulator.env
    good_step = environment.step

    def step(action: np.ndarray) -> Any:
        if broken == "engine":
            raise environment.p.error("not connected")
        raw, *rest = good_step(action)
        return {**raw, "robot_obs": np.full(15, np.nan)}, *rest

    monkeypatch.setattr(environment, "step", step)
    with pytest.raises(SimulatorFailure, match="calvin_d"):
        simulator.run_chunk(STILL)
    simulator.reset(OPEN_DRAWER, seed=0)
    assert simulator.env is not environment
    assert simulator.run_chunk(STILL).duration == 1


def test_an_engine_that_cannot_even_be_left_is_told_as_what_broke_it(
    simulator: CalvinSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.reset(OPEN_DRAWER, seed=0)
    engine = simulator.env.p

    def refuse(*_: Any, **__: Any) -> None:
        raise engine.error("Not connected to physics server.")

    monkeypatch.setattr(simulator.env, "step", refuse)
    monkeypatch.setattr(engine, "disconnect", refuse)
    with pytest.raises(SimulatorFailure, match="calvin_d broke: Not connected"):
        simulator.run_chunk(STILL)
    simulator.reset(OPEN_DRAWER, seed=0)
    assert simulator.run_chunk(STILL).duration == 1


def test_provenance_names_the_clone_and_agrees_with_identify(simulator: CalvinSimulator) -> None:
    said = simulator.provenance()
    named = identify(CONFIG)
    assert named.items() <= said.items()
    assert (said["simulator"], said["renderer"], said["calvin_env_version"]) == ("calvin", "tiny", "other")


def test_another_task_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avavla_ray.simulators.calvin.oracle.TASKS", TASKS[:-1])
    with pytest.raises(InputError, match="34 tasks"):
        CalvinSimulator(CONFIG)
