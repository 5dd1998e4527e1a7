"""The suites as we read them are the suites as LIBERO has them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.installation import prepare
from avavla_ray.simulators.libero.suites import MAX_STEPS, initial_states, instruction_of, suite_spec, task_at, tasks_of
from avavla_ray.simulators.registry import LIBERO_SUITES


def test_limits_are_the_published_ones() -> None:
    limits = {suite: suite_spec(suite).max_steps for suite in LIBERO_SUITES}
    assert limits == {
        "libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400,
    }  # fmt: skip


def test_tasks_are_in_the_benchmarks_order_with_its_instructions() -> None:
    prepare()
    from libero.libero.benchmark import get_benchmark_dict

    for suite in LIBERO_SUITES:
        theirs = get_benchmark_dict()[suite]()
        assert len(tasks_of(suite)) == theirs.n_tasks == {"libero_90": 90}.get(suite, 10)
        assert suite_spec(suite).instructions == tuple(task.language for task in theirs.tasks)
        for ours, task in zip(tasks_of(suite), theirs.tasks, strict=True):
            assert (ours.name, ours.bddl.name, ours.initial_states.name) == (
                task.name, task.bddl_file, task.init_states_file,
            )  # fmt: skip
            assert ours.bddl.is_file()
            assert ours.initial_states.is_file()


def test_initial_states_are_those_that_torch_reads() -> None:
    import torch

    for suite in LIBERO_SUITES:
        task = task_at(suite, len(tasks_of(suite)) - 1)
        states = initial_states(task)
        assert states.shape[0] == suite_spec(suite).num_initial_states == 50
        assert np.array_equal(states, torch.load(task.initial_states, weights_only=False))
        with pytest.raises(ValueError):
            states[0, 0] = 1


def test_scene_prefixes_are_no_part_of_an_instruction() -> None:
    assert instruction_of("KITCHEN_SCENE10_put_the_butter_at_the_back_in_the_top_drawer") == (
        "put the butter at the back in the top drawer"
    )
    assert instruction_of("open_the_middle_drawer_of_the_cabinet") == "open the middle drawer of the cabinet"


def test_reading_suites_imports_no_simulator() -> None:
    code = (
        "import sys; from avavla_ray.simulators.libero.suites import suite_spec, initial_states, task_at;"
        "suite_spec('libero_90'); initial_states(task_at('libero_90', 0));"
        "print(sorted({'mujoco', 'robosuite', 'libero', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_suites_and_tasks_are_named() -> None:
    with pytest.raises(InputError, match="unknown suite 'libero_objects': did you mean 'libero_object'"):
        tasks_of("libero_objects")
    for index in (-1, 10):
        with pytest.raises(InputError, match=f"task {index} does not exist: libero_goal has tasks 0 to 9"):
            task_at("libero_goal", index)


def test_every_suite_has_a_limit() -> None:
    assert set(MAX_STEPS) == set(LIBERO_SUITES)
