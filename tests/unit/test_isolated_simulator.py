"""A simulator in its own process is the same simulator, and whatever becomes of that process is told and cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.faults import FAULTS, FaultPlan, make_faulty
from avavla_ray.simulators.isolated.limits import Limits
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from avavla_ray.simulators.registry import make_simulator
from tests.support.isolation_faults import CHUNK, CONFIG, Dot, Hoarder, Inert, Stuck, make_meeting
from tests.support.processes import descendants, is_alive, left_behind, wait_until_gone

pytestmark = pytest.mark.alone

TABLE = SimulatorConfig(suite="tabletop", image_size=48)
OTHER = SimulatorConfig(suite="tests.support.processes:none", image_size=16)  # has its simulators forked elsewhere
TOLD = {
    "segmentation fault": r"SIGSEGV \(segmentation fault\) in run_chunk",
    "killed": "SIGKILL",
    "exit": "status 3",
    "memory": "MiB and was killed",
    "hang": "run_chunk took longer than 3 s.*heart beats",
    "hang holding the interpreter": "heart has not beaten",
    "hang in reset": "reset took longer than 3 s",
    "nan": "not finite",
    "constant image": r"single colour, \(127, 127, 127\)",
    "physics": "diverged",
}
LIMITS = Limits(start_s=120.0, reset_s=3.0, step_s=0.75, memory_bytes=2**29)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process, file descriptor or named memory of this file's tests outlives them."""
    before = left_behind()
    keeper = IsolatedSimulator(Dot, CONFIG)  # so that the tests share its imports
    yield
    keeper.close()
    assert left_behind() == before


def test_it_is_the_same_simulator() -> None:
    inside, isolated = make_simulator(TABLE), IsolatedSimulator(config=TABLE)
    try:
        assert (isolated.spec, isolated.config) == (inside.spec, TABLE)
        assert isolated.provenance() == {**inside.provenance(), "isolated": True}
        actions = np.random.default_rng(0).uniform(-1, 1, (3, 4, 7)).astype(np.float32)
        for simulator in (inside, isolated):
            simulator.reset(2, seed=5)
        first, again = inside.reset(1, seed=3), isolated.reset(1, seed=3)
        np.testing.assert_array_equal(first.images, again.images)
        for chunk in actions:
            one, other = inside.run_chunk(chunk, record=True), isolated.run_chunk(chunk, record=True)
            np.testing.assert_array_equal(one.observation.images, other.observation.images)
            np.testing.assert_array_equal(one.observation.proprio, other.observation.proprio)
            assert one.observation.instruction == other.observation.instruction
            assert (one.reward, one.success, one.truncated, one.duration) == (
                other.reward, other.success, other.truncated, other.duration,
            )  # fmt: skip
        films = [simulator.frames() for simulator in (inside, isolated)]
        assert len(films[0]) == len(films[1]) == 12
        np.testing.assert_array_equal(films[0], films[1])
        assert isolated.frames() == []
    finally:
        inside.close()
        isolated.close()


def test_an_observation_is_not_overwritten_by_the_next() -> None:
    simulator = IsolatedSimulator(Dot, CONFIG)
    first = simulator.reset(0)
    simulator.run_chunk(CHUNK)
    assert first.proprio[0] == 0
    simulator.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_told_by_its_kind_and_the_next_reset_plays_on(fault: str, tmp_path: Path) -> None:
    plan = FaultPlan(tmp_path, every=2, faults=(fault,), hoard_bytes=2**31)
    simulator = IsolatedSimulator(partial(make_faulty, Dot, plan), CONFIG, LIMITS)
    with pytest.raises(SimulatorFailure) as caught:
        simulator.reset(0)
        first = simulator.pid
        simulator.run_chunk(CHUNK)
        simulator.run_chunk(CHUNK)
        simulator.reset(0)
    assert caught.value.kind == FAULTS[fault]
    caught.match(TOLD[fault])
    assert simulator.pid is None
    assert not is_alive(first)
    assert simulator.failures == {FAULTS[fault]: 1}
    with pytest.raises(InputError, match="call reset first"):
        simulator.run_chunk(CHUNK)
    simulator.reset(0)
    assert simulator.pid not in (None, first)
    assert simulator.run_chunk(CHUNK).duration == 4
    simulator.close()
    assert [entry["fault"] for entry in plan.read("faults")] == [fault]


def test_a_deadlock_is_found_long_before_its_deadline(tmp_path: Path) -> None:
    plan = FaultPlan(tmp_path, every=1, faults=("hang holding the interpreter",))
    limits = Limits(step_s=1000.0, silence_s=1.0)
    simulator = IsolatedSimulator(partial(make_faulty, Dot, plan), CONFIG, limits)
    simulator.reset(0)
    with pytest.raises(SimulatorFailure, match="no life for") as caught:
        simulator.run_chunk(CHUNK)
    assert caught.value.kind == "hang"
    simulator.close()


def test_a_process_that_dies_between_commands_is_told_at_the_next() -> None:
    simulator = IsolatedSimulator(Dot, CONFIG)
    simulator.reset(0)
    described = simulator.provenance()
    os.kill(simulator.pid, signal.SIGSEGV)
    wait_until_gone({simulator.pid})
    with pytest.raises(SimulatorFailure, match="SIGSEGV") as caught:
        simulator.run_chunk(CHUNK)
    assert caught.value.kind == "crash"
    assert simulator.provenance() == described
    simulator.close()


def test_memory_that_is_not_there_is_no_fault_of_the_program() -> None:
    simulator = IsolatedSimulator(Hoarder, CONFIG)
    simulator.reset(0)
    with pytest.raises(SimulatorFailure) as caught:
        simulator.run_chunk(CHUNK)
    assert caught.value.kind == "memory"
    simulator.close()


def test_a_fault_of_the_program_is_raised_as_it_was() -> None:
    simulator = IsolatedSimulator(Inert, CONFIG)
    simulator.reset(0)
    with pytest.raises(LookupError, match="no such joint") as caught:
        simulator.run_chunk(CHUNK)
    assert "in run_chunk" in str(caught.value.__cause__)
    with pytest.raises(InputError, match="no episode is running"):
        simulator.run_chunk(CHUNK)
    assert simulator.reset(0).instruction == "wait"
    simulator.close()


def test_bad_input_arrives_as_it_was_raised() -> None:
    with pytest.raises(InputError, match="table_top"):
        IsolatedSimulator(config=SimulatorConfig(suite="table_top"))
    simulator = IsolatedSimulator(config=TABLE)
    with pytest.raises(InputError, match="task 99"):
        simulator.reset(99)
    with pytest.raises(InputError, match="call reset first"):
        simulator.run_chunk(np.zeros((4, 7), np.float32))
    simulator.reset(0)
    with pytest.raises(InputError, match="actions of shape"):
        simulator.run_chunk(np.zeros((4, 3), np.float32))
    assert simulator.run_chunk(np.zeros((4, 7), np.float32)).duration == 4
    simulator.close()


def test_a_factory_that_cannot_travel_leaves_nothing_behind() -> None:
    before = left_behind()
    lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):
        IsolatedSimulator(lambda config: (lock, Dot(config))[1], CONFIG)
    assert left_behind() == before


def test_a_simulator_that_cannot_be_closed_leaves_nothing_behind() -> None:
    before = left_behind()
    simulator = IsolatedSimulator(Stuck, OTHER)
    with pytest.raises(RuntimeError, match="the lid is stuck"):
        simulator.close()
    assert simulator.pid is None
    assert left_behind() == before
    simulator.close()


@pytest.mark.parametrize("fault", ["hang", None])
def test_a_simulator_that_is_dropped_ends_its_processes(fault: str | None, tmp_path: Path) -> None:
    before = left_behind()
    plan = FaultPlan(tmp_path, every=1, faults=(fault,) if fault else ())
    simulator = IsolatedSimulator(partial(make_faulty, Dot, plan) if fault else Dot, OTHER)
    simulator.reset(0)
    simulator.begin_chunk(CHUNK)
    del simulator
    end = time.monotonic() + 20
    while left_behind() != before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_closed_simulator_can_be_reset_again() -> None:
    simulator = IsolatedSimulator(Dot, CONFIG)
    simulator.reset(0)
    simulator.close()
    simulator.close()
    assert simulator.pid is None
    assert simulator.reset(0).instruction == "wait"
    simulator.close()


def test_simulators_of_one_owner_work_at_the_same_time(tmp_path: Path) -> None:
    # Neither comes to an end before the other has begun.
    simulators = [IsolatedSimulator(partial(make_meeting, tmp_path, 2), CONFIG, LIMITS) for _ in range(2)]
    for simulator in simulators:
        simulator.begin_reset(0)
    for simulator in simulators:
        simulator.finish_reset()
    for simulator in simulators:
        simulator.begin_chunk(CHUNK)
    assert [simulator.finish_chunk().duration for simulator in simulators] == [4, 4]
    for simulator in simulators:
        simulator.close()


def test_what_was_begun_and_not_fetched_is_not_mistaken_for_what_comes_next() -> None:
    simulator = IsolatedSimulator(Dot, CONFIG)
    simulator.reset(0)
    simulator.begin_chunk(CHUNK)
    with pytest.raises(InputError, match="not finished"):
        simulator.begin_chunk(CHUNK)
    simulator.begin_reset(0)
    with pytest.raises(InputError, match="no chunk has been begun"):
        simulator.finish_chunk()
    assert simulator.finish_reset().proprio[0] == 0
    simulator.close()


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_costs_the_episode_and_confuses_nothing(tmp_path: Path) -> None:
    plan = FaultPlan(tmp_path, every=2, faults=("hang",))
    simulator = IsolatedSimulator(partial(make_faulty, Dot, plan), CONFIG)
    simulator.reset(0)
    simulator.run_chunk(CHUNK)
    first, before = simulator.pid, signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulator.run_chunk(CHUNK)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not is_alive(first)
    assert simulator.reset(0).proprio[0] == 0
    assert simulator.run_chunk(CHUNK).observation.proprio[0] == 4
    simulator.close()


def test_the_process_that_simulators_are_forked_from_may_die_too() -> None:
    simulators = [IsolatedSimulator(Dot, CONFIG) for _ in range(2)]
    zygote = simulators[0]._place.nursery._process
    others = descendants() - {zygote.pid}
    zygote.kill()
    wait_until_gone({simulator.pid for simulator in simulators} & others)
    for simulator in simulators:
        with pytest.raises(SimulatorFailure, match="forked from died") as caught:
            simulator.reset(0)
        assert (caught.value.kind, caught.value.shared) == ("crash", True)
        assert simulator.reset(0).instruction == "wait"
    for simulator in simulators:
        simulator.close()


def test_a_module_that_starts_threads_is_not_imported_where_processes_are_forked(capfd) -> None:
    suite = "tests.support.threads_when_imported:Threaded"
    simulator = IsolatedSimulator(config=SimulatorConfig(suite=suite, image_size=16))
    assert simulator.reset(0).instruction == "wait"
    simulator.close()
    assert "threads_when_imported starts threads" in capfd.readouterr().err


OWNER = """
import sys, os, time
from functools import partial
from pathlib import Path
print("main", flush=True)
sys.path.insert(0, {root!r})
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.isolated.faults import FaultPlan, make_faulty
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator
from tests.support.isolation_faults import CHUNK, CONFIG, Dot

def make(config):
    return Dot(config)

plan = FaultPlan(Path({folder!r}), every=1, faults=({fault!r},))
simulator = IsolatedSimulator(partial(make_faulty, make, plan), CONFIG)
simulator.reset(0)
simulator.begin_chunk(CHUNK)
print(simulator.pid, simulator._place.nursery._process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(("fault", "how"), [("hang holding the interpreter", "script"), ("hang", "stdin")])
def test_the_death_of_the_owner_is_the_end_of_all(fault: str, how: str, tmp_path: Path) -> None:
    program = OWNER.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path), fault=fault)
    script = tmp_path / "owner.py"
    script.write_text(program, encoding="utf-8")
    with script.open("rb") as stream:
        command = [sys.executable, str(script)] if how == "script" else [sys.executable, "-"]
        owner = subprocess.Popen(command, stdin=stream, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "main\n"
    # Its processes have not run the script again, though the factory is defined in it.
    pids = {int(word) for word in owner.stdout.readline().split()}
    end = time.monotonic() + 20
    while not (tmp_path / "faults").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert all(is_alive(pid) for pid in pids)
    owner.kill()
    owner.wait()
    wait_until_gone(pids)
    owner.stdout.close()
