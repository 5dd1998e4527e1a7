"""The five LIBERO suites: tasks, instructions, limits and published initial states, read without importing LIBERO."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.base import SuiteSpec
from avavla_ray.simulators.libero.installation import libero_root

# Environment steps of the OpenVLA evaluation protocol: the longest demonstration of the suite and some slack.
MAX_STEPS = {
    "libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400,
}  # fmt: skip
NUM_INITIAL_STATES = 50


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        suite, index: its place. name: file name without suffix.
        instruction: in words, as the published evaluations give it to a policy.
        bddl: file with scene, placement regions and goal predicate.
        initial_states: file with the published initial states.
    """

    suite: str
    index: int
    name: str
    instruction: str
    bddl: Path
    initial_states: Path


def instruction_of(name: str) -> str:
    """The instruction that a task's file name spells, without the scene prefix of libero_10 and libero_90."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")


@functools.cache
def tasks_of(suite: str) -> tuple[Task, ...]:
    """Tasks of `suite` in the benchmark's default order.

    Raises:
        InputError: unknown suite, or hf-libero is not installed.
    """
    check_known("suite", suite, MAX_STEPS)
    root = libero_root()
    # The map is a file of literals; importing it the usual way would pull in all of LIBERO and torch.
    spec = importlib.util.spec_from_file_location("_libero_task_map", root / "benchmark" / "libero_suite_task_map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(
        Task(
            suite, index, name, instruction_of(name), root / "bddl_files" / suite / f"{name}.bddl",
            root / "init_files" / suite / f"{name}.pruned_init",
        )
        for index, name in enumerate(module.libero_task_map[suite])
    )  # fmt: skip


@functools.cache
def suite_spec(suite: str) -> SuiteSpec:
    """Fixed facts of `suite`.

    Raises:
        InputError: unknown suite, or hf-libero is not installed.
    """
    instructions = tuple(task.instruction for task in tasks_of(suite))
    return SuiteSpec(suite, instructions, MAX_STEPS[suite], NUM_INITIAL_STATES)


def task_at(suite: str, index: int) -> Task:
    """Task `index` of `suite`.

    Raises:
        InputError: there is no such task.
    """
    tasks = tasks_of(suite)
    if not 0 <= index < len(tasks):
        raise InputError(f"task {index} does not exist: {suite} has tasks 0 to {len(tasks) - 1}")
    return tasks[index]


@functools.lru_cache(maxsize=16)
def initial_states(task: Task) -> np.ndarray:
    """(50, 1 + nq + nv) float64: time, positions and velocities of the published initial states, read-only."""
    # torch.save's archive around a pickled array; read it so, and a simulator process needs no torch.
    with zipfile.ZipFile(task.initial_states) as archive:
        states = np.asarray(pickle.loads(archive.read("archive/data.pkl")))
    states.flags.writeable = False
    return states
