"""Checks every task on the bundled assets: python -m avavla_ray.simulators.libero.bundled.check

Each task must build, load its published initial states without throwing objects about, take random actions, and have a
goal that some state satisfies. One line a task; the exit status is 1 when a task fails.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.simulators.base import SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.libero.adapter import LiberoSimulator
from avavla_ray.simulators.libero.bundled.build import BUNDLED_SUITES
from avavla_ray.simulators.libero.bundled.goals import GoalState
from avavla_ray.simulators.libero.suites import NUM_INITIAL_STATES, initial_states, task_at

# Across the table, metres from the published place to where a thing comes to rest. Published states hold some things
# above their support and push others into each other: the originals move by 6 cm and more, too.
FLUNG = 0.12
RANDOM_STEPS = 10


@dataclass(frozen=True)
class CheckSettings:
    """What to check.

    Attributes:
        suites: suites whose tasks are checked.
        tasks: indices of the tasks; all when empty.
        states: how many published initial states of each task are loaded, from the first.
        assets: official, bundled, or a directory.
        reference: assets whose resting places are compared with, official or a directory; empty for none.
        report: JSON file for all that was measured.
    """

    suites: tuple[str, ...] = BUNDLED_SUITES
    tasks: tuple[int, ...] = ()
    states: int = NUM_INITIAL_STATES
    assets: str = "bundled"
    reference: str = ""
    report: Path | None = None


@dataclass
class TaskReport:
    """What was found in one task.

    Attributes:
        geoms: of the compiled model. states: published states that loaded.
        moved: farthest that a thing slid from its published place until it rested, metres; `mover` says which.
        apart: farthest between resting places here and on the reference assets, metres; `parted` says which.
        faults: what is wrong; empty for a good task.
        seconds: CPU time.
    """

    suite: str
    task: int
    instruction: str
    geoms: int = 0
    states: int = 0
    moved: float = 0.0
    mover: str = ""
    apart: float = 0.0
    parted: str = ""
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def resting_places(simulator: LiberoSimulator) -> dict[str, np.ndarray]:
    """Position of each thing that is not fixed, metres."""
    scene = simulator.env.env
    return {name: simulator.data.xpos[scene.obj_body_id[name]].copy() for name in scene.objects_dict}


def published_places(simulator: LiberoSimulator, state: np.ndarray) -> dict[str, np.ndarray]:
    """The same in a published initial state, (1 + nq + nv)."""
    scene, model = simulator.env.env, simulator.model
    addresses = {name: model.joint(thing.joints[0]).qposadr[0] for name, thing in scene.objects_dict.items()}
    return {name: state[1 + address : 4 + address] for name, address in addresses.items()}


def farthest(here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> tuple[float, str]:
    """Largest distance between two sets of places, and whose it is."""
    return max((float(np.linalg.norm(place - there[name])), name) for name, place in here.items())


def farthest_slide(here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> tuple[float, str]:
    """The same across the table; that things fall from where they were published is no fault."""
    return farthest({name: place[:2] for name, place in here.items()}, {name: x[:2] for name, x in there.items()})


def check_task(simulator: LiberoSimulator, task: int, states: int, reference: LiberoSimulator | None) -> TaskReport:
    """Check task `task` of the simulator's suite on its first `states` published initial states."""
    suite = simulator.config.suite
    report = TaskReport(suite, task, simulator.spec.instructions[task])
    started = time.process_time()
    try:
        simulator.reset(task)
        published = initial_states(task_at(suite, task))[:states]
        size = 1 + simulator.model.nq + simulator.model.nv
        if published.shape[1] != size:
            report.faults.append(f"published states have {published.shape[1]} numbers, the model takes {size}")
            return report
        for index, state in enumerate(published):
            _check_state(simulator, report, index, state, reference)
        simulator.reset(task, initial_state=0)
        actions = np.random.default_rng(task).uniform(-1, 1, (RANDOM_STEPS, simulator.spec.action_dim))
        simulator.run_chunk(actions.astype(np.float32))
        simulator.reset(task, initial_state=0)
        missed = GoalState(simulator).reach()
        report.faults += [f"no state satisfies {' '.join(goal)}" for goal in missed]
    except (InputError, SimulatorFailure) as error:
        report.faults.append(str(error))
    report.seconds = time.process_time() - started
    return report


def _check_state(
    simulator: LiberoSimulator, report: TaskReport, index: int, state: np.ndarray, reference: LiberoSimulator | None
) -> None:
    simulator.reset(report.task, initial_state=index)
    report.geoms = simulator.model.ngeom
    report.states += 1
    if simulator.env.env._check_success():
        report.faults.append(f"the task is done in state {index} already")
    places = resting_places(simulator)
    moved, name = farthest_slide(places, published_places(simulator, state))
    if moved > report.moved:
        report.moved, report.mover = moved, f"{name} in state {index}"
    if moved > FLUNG:
        report.faults.append(f"{name} is flung {100 * moved:.0f} cm in state {index}")
    if reference is not None:
        reference.reset(report.task, initial_state=index)
        apart, name = farthest(places, resting_places(reference))
        if apart > report.apart:
            report.apart, report.parted = apart, f"{name} in state {index}"


def line_of(report: TaskReport) -> str:
    """One line for people."""
    verdict = "ok    " if not report.faults else "FAULTY"
    parts = [f"{report.suite} {report.task:2d} {verdict} {report.states} states", f"{report.geoms} geoms"]
    parts.append(f"slid {1000 * report.moved:.0f} mm ({report.mover})")
    if report.parted:
        parts.append(f"apart {1000 * report.apart:.0f} mm ({report.parted})")
    return ", ".join([*parts, f"{report.seconds:.1f} s", *report.faults])


def check(settings: CheckSettings) -> list[TaskReport]:
    """Check all that `settings` names, and print a line for each task as it is done."""
    reports = []
    for suite in settings.suites:
        simulator = _simulator(suite, settings.assets)
        reference = _simulator(suite, settings.reference) if settings.reference else None
        for task in settings.tasks or range(len(simulator.spec.instructions)):
            reports.append(check_task(simulator, task, settings.states, reference))
            print(line_of(reports[-1]), flush=True)
        for used in (simulator, reference):
            if used is not None:
                used.close()
    return reports


def _simulator(suite: str, assets: str) -> LiberoSimulator:
    return LiberoSimulator(SimulatorConfig(suite=suite, assets=assets, render="none"))


def main(settings: CheckSettings) -> None:
    """Check, report, and exit with 1 when a task is faulty."""
    if not 1 <= settings.states <= NUM_INITIAL_STATES:
        raise InputError(
            f"{settings.states} states: each task has {NUM_INITIAL_STATES}, give 1 to {NUM_INITIAL_STATES}"
        )
    reports = check(settings)
    if settings.report is not None:
        write_json(settings.report, [asdict(report) for report in reports])
    faulty = [report for report in reports if report.faults]
    print(f"{len(reports) - len(faulty)} of {len(reports)} tasks are good")
    if faulty:
        raise SystemExit(1)


if __name__ == "__main__":
    run_job(main, CheckSettings)
