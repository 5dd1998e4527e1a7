"""The table-top's suites and starts, without physics."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avavla_ray.errors import InputError
from avavla_ray.policy.config import preset
from avavla_ray.policy.text import make_tokenizer
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.episodes import start_random
from avavla_ray.simulators.registry import identify, suite_spec
from avavla_ray.simulators.tabletop import scene, tasks


def test_facts_of_the_suites() -> None:
    spec = suite_spec("tabletop")
    assert len(set(spec.instructions)) == len(spec.instructions) >= 12
    assert "push the blue block to the left zone" in spec.instructions
    assert (spec.action_dim, spec.proprio_dim, spec.num_cameras, spec.num_initial_states) == (7, 8, 2, 50)
    assert len(set(suite_spec("tabletop_memory").instructions)) == 1, "its instruction does not name the target"


def test_the_policy_tells_all_instructions_apart() -> None:
    config = preset("tiny")
    tokenizer = make_tokenizer(config)
    codes = {tuple(tokenizer.encode(text).tolist()) for text in suite_spec("tabletop").instructions}
    assert len(codes) == len(suite_spec("tabletop").instructions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "table-top"}, "did you mean 'tabletop'"),
        ({"tasks": (15,)}, "task 15 does not exist: tabletop has tasks 0 to 14"),
        ({"suite": "tabletop_memory", "tasks": (3,)}, "tabletop_memory has tasks 0 to 2"),
    ],
)
def test_what_does_not_exist_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        identify(SimulatorConfig(**{"suite": "tabletop", **changes}))


@pytest.mark.parametrize("index", [-1, 15])
def test_a_task_that_does_not_exist_is_refused(index: int) -> None:
    with pytest.raises(InputError, match=f"task {index} does not exist"):
        tasks.task_at("tabletop", index)


@given(st.integers(0, 2**31 - 1))
def test_drawn_starts_leave_room_and_are_no_published_ones(seed: int) -> None:
    poses = scene.start_poses(start_random(None, seed))
    assert np.abs(poses[:, 0]).max() <= scene.START_X
    assert np.abs(poses[:, 1]).max() <= scene.START_Y
    assert np.diff(np.sort(poses[:, 1])).min() >= scene.START_GAP - 1e-12
    outside = scene.ZONE_X["right"] - scene.ZONE_HALF[0] - scene.BLOCK_HALF
    assert np.abs(poses[:, 0]).max() < outside, "no push is done before it begins"
    for state in range(tasks.NUM_INITIAL_STATES):
        assert not np.array_equal(scene.start_poses(start_random(state, seed)), poses)


def test_published_starts_differ_and_every_block_is_everywhere() -> None:
    starts = np.stack([scene.start_poses(start_random(state, seed=3)) for state in range(50)])
    assert len(np.unique(starts[:, 0, 0])) == 50
    again = np.stack([scene.start_poses(start_random(state, seed=4)) for state in range(50)])
    assert np.array_equal(starts, again), "they do not depend on the seed"
    assert np.abs(starts.mean(0)[:, :2]).max() < 0.03, "a block's colour says little about its place"


def test_specs_import_no_simulator() -> None:
    code = (
        "import sys; from avavla_ray.simulators.base import SimulatorConfig; "
        "from avavla_ray.simulators.registry import identify, suite_spec; suite_spec('tabletop'); "
        "identify(SimulatorConfig(suite='tabletop')); print(sorted({'mujoco', 'torch', 'libero'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
