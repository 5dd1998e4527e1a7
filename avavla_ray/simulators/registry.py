"""Suites by name, the simulator that runs each and the expert that can demonstrate it.

Importing this module imports no simulator. A suite of one's own needs no entry here: its name is then
"package.module:Class", the place of a class with the methods of `Simulator` (docs/simulators.md).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.base import Simulator, SimulatorConfig, SuiteSpec
from avavla_ray.simulators.episodes import check_start

LIBERO_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
CALVIN_SUITES = ("calvin_a", "calvin_b", "calvin_c", "calvin_d")
CHAINS = "_chains"
CALVIN_CHAIN_SUITES = tuple(f"{suite}{CHAINS}" for suite in CALVIN_SUITES)
TABLETOP_SUITES = ("tabletop", "tabletop_memory")
ASSETS_HELP = "official, bundled, or a directory"
RENDERERS = ("reference", "fast", "none")
METHODS = ("suite_spec", "identify", "reset", "run_chunk", "frames", "provenance", "close")


@dataclass(frozen=True)
class SuiteEntry:
    """Where to find what runs a suite, as "module:name".

    Attributes:
        simulator: a class with the methods of `Simulator`.
        expert: a function (simulator, *, seed, noise) -> Expert; None when nobody has written one.
        after_another: a function (simulator, task, *, seed, noise, speed) -> Observation that begins a task where
            the expert has just done another; None where tasks do not follow on each other.
        preload: what is imported ("module") or called ("module:function") in the process that simulators' processes
            are forked from; it may start neither threads nor graphics.
        control_hz: environment steps in a second of the robot's time; None when it is not known.
    """

    simulator: str
    expert: str | None = None
    after_another: str | None = None
    preload: tuple[str, ...] = ()
    control_hz: int | None = None


_LIBERO = SuiteEntry(
    "avavla_ray.simulators.libero.adapter:LiberoSimulator",
    "avavla_ray.simulators.experts.libero:make_libero_expert",
    preload=(
        "avavla_ray.simulators.libero.installation:preload",
        "avavla_ray.simulators.libero.fast",
        "avavla_ray.simulators.libero.stepping",
    ),
    control_hz=20,
)
_CALVIN = SuiteEntry(
    "avavla_ray.simulators.calvin.adapter:CalvinSimulator",
    "avavla_ray.simulators.calvin.experts:make_calvin_expert",
    after_another="avavla_ray.simulators.calvin.lead_in:begin_after_another",
    control_hz=30,
)
_CALVIN_CHAINS = SuiteEntry(
    "avavla_ray.simulators.calvin.training_chains:CalvinTrainingChains",
    control_hz=30,
)
_TABLETOP = SuiteEntry(
    "avavla_ray.simulators.tabletop.adapter:TabletopSimulator",
    "avavla_ray.simulators.tabletop.expert:make_tabletop_expert",
    preload=("avavla_ray.simulators.opengl:choose_renderer", "mujoco"),
    control_hz=25,
)
SUITES: dict[str, SuiteEntry] = {
    **dict.fromkeys(LIBERO_SUITES, _LIBERO),
    **dict.fromkeys(CALVIN_SUITES, _CALVIN),
    **dict.fromkeys(CALVIN_CHAIN_SUITES, _CALVIN_CHAINS),
    **dict.fromkeys(TABLETOP_SUITES, _TABLETOP),
}


def entry_of(suite: str) -> SuiteEntry:
    """Raises InputError when no suite is called so."""
    if ":" in suite:
        return SuiteEntry(suite)
    check_known("suite", suite, SUITES)
    return SUITES[suite]


def load(place: str) -> Any:
    """The object at "module:name".

    Raises:
        InputError: not such a place, no such module, or nothing of that name in it.
    """
    module, _, name = place.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise InputError(f"{place!r} names nothing in a module: give it as package.module:Class")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is absent further down is the module's own trouble, and says so better than we can.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise InputError(f"no module {error.name!r} for {place}: put its folder on PYTHONPATH") from error
    if not hasattr(loaded, name):
        raise InputError(f"module {module} has no {name!r}: give it as package.module:Class")
    return getattr(loaded, name)


def simulator_class(suite: str) -> type[Simulator]:
    """The class that runs `suite`.

    Raises:
        InputError: unknown suite, or what it names is no simulator.
    """
    place = entry_of(suite).simulator
    found = load(place)
    absent = [name for name in METHODS if not callable(getattr(found, name, None))]
    if absent:
        raise InputError(f"{place} is no simulator: it has no {', '.join(absent)} (docs/simulators.md)")
    return found


def suite_spec(suite: str) -> SuiteSpec:
    """Fixed facts of `suite`, without starting its simulator.

    Raises:
        InputError: unknown suite, or its simulator is not installed.
    """
    return simulator_class(suite).suite_spec(suite)


def check_config(config: SimulatorConfig) -> None:
    """Refuse what is wrong for any simulator.

    Raises:
        InputError: unknown suite or renderer, or a number out of range.
    """
    entry_of(config.suite)
    check_known("renderer", config.render, RENDERERS)
    if config.image_size < 16:
        raise InputError(f"image size {config.image_size} is too small: give at least 16 pixels")
    if config.max_steps is not None and config.max_steps < 1:
        raise InputError(f"max_steps {config.max_steps} leaves no step to take: give at least 1")
    if config.settle_steps < 0:
        raise InputError(f"settle_steps {config.settle_steps} is negative: give 0 or more")


def identify(config: SimulatorConfig) -> dict[str, Any]:
    """Check everything about `config` that can be checked without starting a simulator.

    Returns:
        what tells apart results of different data under one suite name (for LIBERO: assets and their digest).

    Raises:
        InputError: unknown suite, task or renderer, a number out of range, or what the simulator's `identify` refuses.
    """
    check_config(config)
    spec = suite_spec(config.suite)
    for task in config.tasks:
        check_start(spec, config, task, None)
    return simulator_class(config.suite).identify(config)


def make_simulator(config: SimulatorConfig) -> Simulator:
    """Start the simulator of `config.suite` in this process.

    Raises:
        InputError: unknown suite or task, assets that do not cover the suite, no OpenGL, simulator not installed.
    """
    check_config(config)
    return simulator_class(config.suite)(config)
