"""The `Simulator` contract, on the real thing."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Observation, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.libero.adapter import KEPT_TASKS, NULL_ACTION, LiberoSimulator
from avavla_ray.simulators.libero.suites import initial_states, task_at
from avavla_ray.simulators.registry import make_simulator
from tests.support.libero_scenes import ASSETS, drop_into_basket, random_actions

pytestmark = pytest.mark.libero

CONFIG = SimulatorConfig(suite="libero_object", image_size=64)
MILK = 7


@pytest.fixture(scope="module", params=ASSETS)
def simulator(request: pytest.FixtureRequest) -> Iterator[LiberoSimulator]:
    if request.param == "official":
        request.getfixturevalue("real_assets")
    made = make_simulator(replace(CONFIG, assets=request.param))
    assert isinstance(made, LiberoSimulator)
    yield made
    made.close()


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def same(first: Observation, second: Observation) -> bool:
    return np.array_equal(first.images, second.images) and np.array_equal(first.proprio, second.proprio)


def test_an_observation_is_what_the_contract_says(simulator: LiberoSimulator) -> None:
    seen = simulator.reset(MILK, initial_state=0)
    assert seen.images.shape == (2, 64, 64, 3)
    assert seen.images.dtype == np.uint8
    assert seen.images.flags.c_contiguous
    assert seen.images.std() > 10
    assert not np.array_equal(seen.images[0], seen.images[1])
    assert seen.proprio.shape == (8,)
    assert seen.proprio.dtype == np.float32
    # The hand hangs over the floor, pointing down, fingers open.
    assert np.abs(seen.proprio[:3] - [-0.15, 0.0, 0.25]).max() < 0.06
    assert abs(np.linalg.norm(seen.proprio[3:6]) - np.pi) < 0.2
    assert 0.03 < seen.proprio[6] <= 0.04
    assert -0.04 <= seen.proprio[7] < -0.03
    assert seen.instruction == simulator.spec.instructions[MILK] == "pick up the milk and place it in the basket"


def test_proprioception_follows_the_hand(simulator: LiberoSimulator) -> None:
    before = simulator.reset(MILK, initial_state=0).proprio
    raised = simulator.run_chunk(np.tile(np.array([0, 0, 1, 0, 0, 0, 1], np.float32), (8, 1))).observation.proprio
    assert raised[2] > before[2] + 0.05
    assert raised[6] < before[6] - 0.01


def test_the_scene_is_upright_and_mirrored_as_openvla_sees_it(simulator: LiberoSimulator) -> None:
    simulator.reset(MILK, initial_state=0)
    model, data, domain = simulator.model, simulator.data, simulator.env.env
    place = np.array([0.0, -0.2, 0.1])

    def scene() -> np.ndarray:
        domain.sim.forward()
        domain.watch(deciding=True)
        return simulator._observation(domain.sample_now()).images[0].astype(int)

    domain.sim.data.set_joint_qpos("milk_1_joint0", np.array([*place, 1, 0, 0, 0]))
    with_milk = scene()
    domain.sim.data.set_joint_qpos("milk_1_joint0", np.array([10.0, 10, 10, 1, 0, 0, 0]))
    rows, columns = np.nonzero(np.abs(with_milk - scene()).sum(-1) > 30)
    camera = model.camera("agentview").id
    x, y, z = data.cam_xmat[camera].reshape(3, 3).T @ (place - data.cam_xpos[camera])
    focal = 32 / np.tan(np.radians(model.cam_fovy[camera]) / 2)
    assert len(rows) > 10
    assert abs(rows.mean() - (32 - focal * y / -z)) < 5
    assert abs(columns.mean() - (32 - focal * x / -z)) < 5
    assert abs(columns.mean() - 32) > 5


def test_resets_repeat_whatever_happened_between(simulator: LiberoSimulator) -> None:
    actions = random_actions(8)
    for start in ({"initial_state": 4, "seed": 3}, {"seed": 5}):
        first = simulator.reset(0, **start)
        state, later = simulator.env.get_sim_state(), simulator.run_chunk(actions).observation
        simulator.run_chunk(random_actions(8, seed=1))
        simulator.reset(0, seed=9)
        simulator.run_chunk(-actions)
        simulator.reset(1, seed=9)
        np.random.seed(123)
        assert same(simulator.reset(0, **start), first), start
        assert np.array_equal(simulator.env.get_sim_state(), state), start
        assert same(simulator.run_chunk(actions).observation, later), start


def test_drawn_starts_differ_from_the_published_ones_and_by_seed(simulator: LiberoSimulator) -> None:
    simulator.reset(0)
    objects = slice(1 + 9, 1 + simulator.model.nq)
    published = initial_states(task_at("libero_object", 0))[:, objects]
    drawn = []
    for seed in range(4):
        simulator.reset(0, seed=seed)
        drawn.append(simulator.env.get_sim_state()[objects])
    for state in drawn:
        assert np.abs(published - state).max(axis=1).min() > 0.005
    gaps = [np.abs(a - b).max() for i, a in enumerate(drawn) for b in drawn[:i]]
    assert min(gaps) > 0.005
    assert not np.array_equal(*(simulator.reset(0, seed=seed).images for seed in (0, 1)))


def test_a_published_state_is_loaded_as_published(simulator: LiberoSimulator) -> None:
    unsettled = LiberoSimulator(replace(simulator.config, settle_steps=0))
    unsettled.reset(2, initial_state=11)
    assert np.array_equal(unsettled.env.get_sim_state(), initial_states(task_at("libero_object", 2))[11])
    unsettled.close()


def test_numpys_global_generator_is_left_alone(simulator: LiberoSimulator) -> None:
    np.random.seed(42)
    expected = np.random.random(3)
    np.random.seed(42)
    simulator.reset(0, seed=1)
    simulator.run_chunk(random_actions(2))
    assert np.array_equal(np.random.random(3), expected)


def test_a_chunk_stops_at_success(simulator: LiberoSimulator) -> None:
    simulator.reset(MILK, initial_state=0)
    drop_into_basket(simulator, "milk_1")
    result = simulator.run_chunk(np.tile(NULL_ACTION, (60, 1)), record=True)
    assert (result.success, result.truncated, result.done, result.reward) == (True, False, True, 1.0)
    assert 1 <= result.duration < 60
    assert simulator.env.check_success()
    frames = simulator.frames()
    assert len(frames) == result.duration
    assert np.array_equal(frames[-1], result.observation.images[0])
    with pytest.raises(InputError, match="no episode is running: call reset first"):
        simulator.run_chunk(NULL_ACTION[None])


def test_an_episode_is_truncated_at_its_limit() -> None:
    short = LiberoSimulator(replace(CONFIG, max_steps=11))
    short.reset(0)
    first, second = short.run_chunk(random_actions(8)), short.run_chunk(random_actions(8))
    assert (first.duration, first.truncated, first.done) == (8, False, False)
    assert (second.duration, second.truncated, second.done, second.success) == (3, True, True, False)
    short.reset(0)
    assert short.run_chunk(random_actions(11)).truncated
    short.close()


def test_recording_gives_a_picture_for_every_step(simulator: LiberoSimulator) -> None:
    simulator.reset(0)
    simulator.run_chunk(random_actions(3))
    assert simulator.frames() == []
    results = [simulator.run_chunk(random_actions(4, seed=i), record=True) for i in range(2)]
    frames = simulator.frames()
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 8
    assert np.array_equal(frames[3], results[0].observation.images[0])
    assert np.array_equal(frames[7], results[1].observation.images[0])
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))
    assert simulator.frames() == []


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((8, 6)), r"actions of shape \(8, 6\): give \(C, 7\)"),
        (np.zeros(7), r"actions of shape \(7,\)"),
        (np.zeros((0, 7)), r"actions of shape \(0, 7\)"),
        (np.full((1, 7), np.nan), "not finite"),
        (np.full((1, 7), np.inf), "not finite"),
    ],
)
def test_bad_actions_are_refused(simulator: LiberoSimulator, actions: np.ndarray, message: str) -> None:
    simulator.reset(0)
    before = simulator.env.get_sim_state()
    with pytest.raises(InputError, match=message):
        simulator.run_chunk(actions)
    assert np.array_equal(simulator.env.get_sim_state(), before)


def test_tasks_and_states_that_do_not_exist_are_refused(simulator: LiberoSimulator) -> None:
    with pytest.raises(InputError, match="task 10 does not exist: libero_object has tasks 0 to 9"):
        simulator.reset(10)
    for state in (-1, 50):
        with pytest.raises(InputError, match=f"initial state {state} does not exist: libero_object has 0 to 49"):
            simulator.reset(0, initial_state=state)
    with pytest.raises(InputError, match="task 12 does not exist"):
        LiberoSimulator(replace(CONFIG, tasks=(12,)))
    some = LiberoSimulator(replace(CONFIG, tasks=(1, 2)))
    with pytest.raises(InputError, match=r"task 3 is not among the tasks \(1, 2\) of this simulator"):
        some.reset(3)
    with pytest.raises(InputError, match="no episode is running"):
        some.run_chunk(NULL_ACTION[None])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "libero_objekt"}, "unknown suite 'libero_objekt': did you mean 'libero_object'"),
        ({"render": "slow"}, "unknown renderer 'slow'"),
        ({"image_size": 8}, "image size 8 is too small"),
        ({"max_steps": 0}, "max_steps 0 leaves no step"),
        ({"settle_steps": -1}, "settle_steps -1 is negative"),
        ({"assets": "/nowhere"}, "assets directory /nowhere is not a directory"),
    ],
)
def test_bad_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_simulator(replace(CONFIG, **change))


def test_assets_without_an_object_of_the_task_say_so(simulator: LiberoSimulator, tmp_path: Path) -> None:
    for entry in simulator.assets.path.iterdir():
        if entry.name != "stable_hope_objects":
            (tmp_path / entry.name).symlink_to(entry)
    lacking = LiberoSimulator(replace(CONFIG, assets=str(tmp_path)))
    (tmp_path / "stable_hope_objects").symlink_to(simulator.assets.path / "stable_hope_objects")
    lacking.reset(0, initial_state=0)
    (tmp_path / "stable_hope_objects").unlink()
    with pytest.raises(InputError, match=r"do not cover libero_object task 7 .*stable_hope_objects.*\.xml"):
        lacking.reset(MILK)
    with pytest.raises(InputError, match="no episode is running: call reset first"):
        lacking.run_chunk(random_actions(8))
    lacking.close()


def test_diverged_physics_is_a_failure_from_which_a_reset_recovers(
    simulator: LiberoSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = simulator.reset(0, initial_state=1)
    simulator.data.qvel[:] = 1e12
    with pytest.raises(SimulatorFailure, match="physics diverged in libero_object: .*BADQ"):
        simulator.run_chunk(random_actions(8))
    with pytest.raises(InputError, match="no episode is running"):
        simulator.run_chunk(random_actions(8))
    assert not any(tmp_path.iterdir()), "MuJoCo's warnings go to the log, not into a file wherever one happens to be"
    assert same(simulator.reset(0, initial_state=1), expected)


def test_two_simulators_in_one_process_draw_their_own_pictures() -> None:
    fast, reference = LiberoSimulator(CONFIG), LiberoSimulator(replace(CONFIG, render="reference"))
    alone = [each.reset(MILK, initial_state=0) for each in (fast, reference)]
    again = [each.reset(MILK, initial_state=0) for each in (fast, reference)]
    assert all(same(a, b) for a, b in zip(alone, again, strict=True))
    reference.close()
    assert same(fast.reset(MILK, initial_state=0), alone[0])
    fast.close()


def test_a_task_that_is_kept_returns_at_once_and_repeats(simulator: LiberoSimulator) -> None:
    first = simulator.reset(0, initial_state=3, seed=1)
    kept = simulator.env
    for task in range(1, KEPT_TASKS):
        simulator.reset(task)
    assert same(simulator.reset(0, initial_state=3, seed=1), first)
    assert simulator.env is kept
    simulator.reset(KEPT_TASKS)
    # Task 1 was used longest ago, and went.
    assert [task.index for task in simulator._kept] == [*range(2, KEPT_TASKS), 0, KEPT_TASKS]


@pytest.mark.long
def test_environments_that_are_not_kept_are_freed_with_renderer_and_handles() -> None:
    simulator = LiberoSimulator(CONFIG)
    simulator.reset(0)
    handles = len(os.listdir("/proc/self/fd"))
    gone = []
    resident = []
    for task in range(1, 10):
        gone.append((weakref.ref(simulator.env.env), weakref.ref(simulator.env.env._renderer)))
        simulator.reset(task)
        gc.collect()
        assert all(reference() is None for pair in gone[: max(0, task + 1 - KEPT_TASKS)] for reference in pair)
        resident.append(resident_mib())
    assert resident[-1] - resident[KEPT_TASKS] < 40, resident
    assert len(os.listdir("/proc/self/fd")) <= handles
    context = weakref.ref(simulator._context)
    simulator.close()
    simulator.close()
    gc.collect()
    assert all(reference() is None for pair in gone for reference in pair)
    assert context() is None
    simulator.reset(0)
    simulator.close()


def test_a_process_that_forgets_to_close_ends_quietly() -> None:
    code = """
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import make_simulator
simulators = [make_simulator(SimulatorConfig(image_size=32)) for _ in range(2)]
for simulator in simulators:
    simulator.reset(0)
renderer = simulators[0].env.env._renderer
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_provenance_names_what_a_result_must_name(simulator: LiberoSimulator) -> None:
    facts = simulator.provenance()
    assert facts["assets"] == simulator.config.assets
    assert len(facts["assets_digest"]) == 64
    for name, value in {
        "simulator": "libero", "suite": "libero_object", "render": "fast", "image_size": 64, "max_steps": 280,
        "settle_steps": 10, "robosuite": "1.4.0", "hf_libero": "0.1.4",
    }.items():  # fmt: skip
        assert facts[name] == value, name
