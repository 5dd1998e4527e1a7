"""The table-top's physics and pictures: real contact, the same every time, and fast."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.experts.expert import make_expert
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.simulators.tabletop.scene import BLOCK_HALF, COLOURS, FINGER_OPEN, FINGERS
from avavla_ray.simulators.tabletop.tasks import SUITES

TASKS = {task.instruction: index for index, task in enumerate(SUITES["tabletop"])}
LIFT_GREEN = TASKS["pick up the green block and lift it"]
PUSH_RED_LEFT = TASKS["push the red block to the left zone"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[TabletopSimulator]:
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop", image_size=64))
    yield simulator
    simulator.close()


def some_actions(count: int, seed: int = 0) -> np.ndarray:
    """(count, 7) actions that go somewhere, grasp and let go."""
    random = np.random.default_rng(seed)
    return np.clip(np.repeat(random.normal(0, 0.8, (count // 4 + 1, 7)), 4, axis=0)[:count], -1, 1).astype(np.float32)


def digest_of_play(simulator: TabletopSimulator, *, record: bool = False) -> str:
    """Of all that an episode shows and of the state that it ends in."""
    digest = hashlib.sha256()
    observation = simulator.reset(LIFT_GREEN, seed=5)
    for part in some_actions(48).reshape(-1, 8, 7):
        digest.update(observation.images.tobytes() + observation.proprio.tobytes())
        observation = simulator.run_chunk(part, record=record).observation
    digest.update(simulator.world.data.qpos.tobytes() + simulator.world.data.qvel.tobytes())
    digest.update(observation.images.tobytes())
    return digest.hexdigest()


def test_what_a_policy_sees(simulator: TabletopSimulator) -> None:
    observation = simulator.reset(LIFT_GREEN, initial_state=0)
    assert observation.images.shape == (2, 64, 64, 3)
    assert observation.images.dtype == np.uint8
    assert observation.proprio.shape == (8,)
    assert observation.proprio.dtype == np.float32
    assert observation.instruction == "pick up the green block and lift it"
    assert np.allclose(observation.proprio[6:], FINGER_OPEN, atol=1e-3)
    assert np.array_equal(observation.proprio[:3], simulator.world.gripper[:3].astype(np.float32))


def channel_of(picture: np.ndarray, colour: str) -> np.ndarray:
    """(H, W) bool: where the colour of a block stands out."""
    index = COLOURS.index(colour)
    others = np.delete(picture.astype(int), index, axis=-1).max(-1)
    return picture[..., index] > others + 60


@pytest.mark.parametrize("size", [64, 128])
def test_every_block_is_seen_where_it_is(size: int) -> None:
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop", image_size=size))
    for state in range(10):
        scene = simulator.reset(0, initial_state=state).images[0]
        columns = {}
        for colour in COLOURS:
            rows, across = np.nonzero(channel_of(scene, colour))
            assert len(rows) >= 6 * (size / 64) ** 2, f"{colour} is hardly visible in state {state}"
            columns[colour] = across.mean()
        left_to_right = sorted(COLOURS, key=lambda colour: simulator.world.block(colour)[0])
        gaps = np.diff([simulator.world.block(colour)[0] for colour in left_to_right])
        for gap, first, second in zip(gaps, left_to_right, left_to_right[1:], strict=False):
            assert gap < 0.02 or columns[first] < columns[second], "the picture is a mirror image"
    simulator.close()


def test_zones_are_on_their_sides(simulator: TabletopSimulator) -> None:
    red, green, blue = simulator.reset(0, initial_state=0).images[0].astype(int).transpose(2, 0, 1)
    yellow = np.nonzero((red > 150) & (green > 150) & (blue < 100))[1]
    purple = np.nonzero((red > 150) & (green < 130) & (blue > 150))[1]
    assert len(yellow) > 100
    assert len(purple) > 100
    assert yellow.max() < 32 <= purple.min()


def test_the_same_play_twice(simulator: TabletopSimulator) -> None:
    first = digest_of_play(simulator)
    simulator.reset(PUSH_RED_LEFT, seed=9)
    simulator.run_chunk(some_actions(20, seed=3))
    assert digest_of_play(simulator) == first, "what was played before shows"
    assert digest_of_play(simulator, record=True) == first, "filming shows"
    assert len(simulator.frames()) == 48


def test_the_same_play_in_another_process(simulator: TabletopSimulator) -> None:
    code = (
        "from tests.integration.test_tabletop_simulator import digest_of_play, TabletopSimulator, SimulatorConfig; "
        "print(digest_of_play(TabletopSimulator(SimulatorConfig(suite='tabletop', image_size=64))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest_of_play(simulator)
    assert done.stderr == "", "a simulator that nobody closed leaves quietly"


def test_the_length_of_chunks_changes_no_state(simulator: TabletopSimulator) -> None:
    ends = []
    for chunk in (1, 8, 48):
        simulator.reset(LIFT_GREEN, seed=5)
        for part in some_actions(48).reshape(-1, chunk, 7):
            observation = simulator.run_chunk(part).observation
        ends.append((simulator.world.data.qpos.copy(), observation.images))
    for qpos, images in ends[1:]:
        assert np.array_equal(qpos, ends[0][0])
        assert np.array_equal(images, ends[0][1])


def test_several_in_one_process_do_not_meet(simulator: TabletopSimulator) -> None:
    alone = digest_of_play(simulator)
    other = TabletopSimulator(SimulatorConfig(suite="tabletop_memory", image_size=32))
    other.reset(1, seed=1)
    simulator.reset(LIFT_GREEN, seed=5)
    for part in some_actions(48).reshape(-1, 8, 7):
        observation = simulator.run_chunk(part).observation
        other.run_chunk(-part[:4])
    other.close()
    third = TabletopSimulator(SimulatorConfig(suite="tabletop", image_size=64))
    assert digest_of_play(third) == alone
    third.close()
    assert np.array_equal(simulator._observe().images, observation.images)
    assert digest_of_play(simulator) == alone, "others closed their renderers"


def test_rendering_none_changes_nothing_but_the_pictures(simulator: TabletopSimulator) -> None:
    blind = TabletopSimulator(SimulatorConfig(suite="tabletop", image_size=64, render="none"))
    for one in (simulator, blind):
        one.reset(LIFT_GREEN, seed=5)
        result = one.run_chunk(some_actions(32), record=True)
    assert np.array_equal(simulator.world.data.qpos, blind.world.data.qpos)
    assert not result.observation.images.any()
    assert len(blind.frames()) == 32


def test_each_action_does_what_is_written(simulator: TabletopSimulator) -> None:
    moves = {0: 0.15, 1: 0.15, 2: -0.08, 5: 0.5}
    places = {0: 0, 1: 1, 2: 2, 5: 3}
    for dimension in range(6):
        simulator.reset(0, seed=1)
        before = simulator.world.gripper
        action = np.zeros((12, 7), np.float32)
        action[:, dimension] = np.sign(moves.get(dimension, 1.0))
        action[:, 6] = -1
        simulator.run_chunk(action)
        moved = simulator.world.gripper - before
        if dimension in moves:
            at = places.pop(dimension)
            assert 0.3 < moved[at] / moves[dimension] < 3
            moved[at] = 0
        assert np.abs(moved).max() < 1e-3, f"action {dimension} moved something else"
    simulator.run_chunk(np.full((8, 7), [0, 0, 0, 0, 0, 0, 1], np.float32))
    assert simulator.world.fingers.max() < 0.002, "+1 closes"


def test_actions_beyond_the_range_are_clipped(simulator: TabletopSimulator) -> None:
    ends = []
    for scale in (1, 50):
        simulator.reset(0, seed=1)
        simulator.run_chunk(scale * np.sign(some_actions(16)))
        ends.append(simulator.world.data.qpos.copy())
    assert np.array_equal(*ends)


def play(simulator: TabletopSimulator, task: int, state: int) -> bool:
    simulator.reset(task, initial_state=state)
    expert = make_expert(simulator)
    while True:
        result = simulator.run_chunk(expert.act()[None])
        if result.done:
            return result.success


def test_a_block_is_lifted_by_friction_alone() -> None:
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop", render="none"))
    assert play(simulator, LIFT_GREEN, 0)
    for name in ("green", *FINGERS):
        simulator.world.model.geom(name).friction[:] = 0.001
    assert not play(simulator, LIFT_GREEN, 0)
    assert simulator.world.block("green")[2] < 2 * BLOCK_HALF


def test_pushing_moves_the_block_and_whatever_is_in_its_way() -> None:
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop", render="none"))
    simulator.reset(PUSH_RED_LEFT, initial_state=0)
    simulator.world.place(np.array([[0, 0, 0], [-0.06, 0, 0], [0, 0.11, 0]]), np.array([0.06, 0, 0.02, 0]))
    blue = simulator.world.block("blue")
    simulator.run_chunk(np.tile(np.array([-0.5, 0, 0, 0, 0, 0, 1], np.float32), (24, 1)))
    assert simulator.world.block("red")[0] < -0.03
    assert simulator.world.block("green")[0] < simulator.world.block("red")[0] - 1.9 * BLOCK_HALF
    assert np.allclose(simulator.world.block("blue"), blue, atol=1e-3)


def test_the_time_limit_ends_an_episode(simulator: TabletopSimulator) -> None:
    short = TabletopSimulator(SimulatorConfig(suite="tabletop", render="none", max_steps=10))
    short.reset(LIFT_GREEN)
    still = np.zeros((8, 7), np.float32)
    assert not short.run_chunk(still).done
    result = short.run_chunk(still)
    assert (result.duration, result.truncated, result.success, result.reward) == (2, True, False, 0.0)
    with pytest.raises(InputError, match="no episode is running"):
        short.run_chunk(still)


def test_what_cannot_be_done_is_refused(simulator: TabletopSimulator) -> None:
    simulator.reset(0)
    for actions, message in (
        (np.zeros((8, 6)), r"actions of shape \(8, 6\): give \(C, 7\)"),
        (np.zeros((0, 7)), "C of at least 1"),
        (np.full((1, 7), np.nan), "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            simulator.run_chunk(actions)
    with pytest.raises(InputError, match="tabletop has 0 to 49"):
        simulator.reset(0, initial_state=50)
    with pytest.raises(InputError, match="task 99 does not exist"):
        simulator.reset(99)
    with pytest.raises(InputError, match="task 1 is not among"):
        TabletopSimulator(SimulatorConfig(suite="tabletop", tasks=(0,), render="none")).reset(1)
    with pytest.raises(InputError, match="reset it before"):
        make_expert(TabletopSimulator(SimulatorConfig(suite="tabletop", render="none")))


def test_a_diverged_state_is_a_failure_and_the_next_reset_heals_it(simulator: TabletopSimulator) -> None:
    whole = digest_of_play(simulator)
    simulator.reset(0)
    simulator.world.data.qvel[:] = np.inf
    with pytest.raises(SimulatorFailure, match="diverged") as caught:
        simulator.run_chunk(np.zeros((1, 7)))
    assert caught.value.kind == "physics"
    assert digest_of_play(simulator) == whole


def test_a_backend_that_needs_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MUJOCO_GL", "glfw")
    with pytest.raises(InputError, match="MUJOCO_GL=glfw cannot render headless"):
        TabletopSimulator(SimulatorConfig(suite="tabletop"))


def test_it_says_what_it_is(simulator: TabletopSimulator) -> None:
    described = simulator.provenance()
    assert described["simulator"] == "tabletop"
    assert described["scene_digest"] == simulator.identify(simulator.config)["scene_digest"]
    assert described["mujoco"]


@pytest.mark.parametrize("size", [64, 128])
def test_a_step_with_two_pictures_takes_under_3_ms(size: int) -> None:
    start = time.process_time()
    simulator = TabletopSimulator(SimulatorConfig(suite="tabletop", image_size=size))
    simulator.reset(0, seed=1)
    assert time.process_time() - start < 1, "construction and first reset"
    simulator.reset(LIFT_GREEN, seed=1)
    spent = []
    for action in some_actions(60):
        start = time.process_time()
        simulator.run_chunk(action[None])
        spent.append(time.process_time() - start)
    simulator.close()
    # Other work on the processor's other half lengthens CPU times too.
    assert np.quantile(spent, 0.1) < 3e-3
