"""Suites by name, and the simulator that runs each. Importing this module imports no simulator."""

from __future__ import annotations

from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.base import Simulator, SimulatorConfig

LIBERO_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
ASSETS_HELP = "official, bundled, or a directory"
RENDERERS = ("reference", "fast")


def check_config(config: SimulatorConfig) -> None:
    """Refuse what can be refused without starting a simulator.

    Raises:
        InputError: unknown suite or renderer, or a number out of range.
    """
    check_known("suite", config.suite, LIBERO_SUITES)
    check_known("renderer", config.render, RENDERERS)
    if config.image_size < 16:
        raise InputError(f"image size {config.image_size} is too small: give at least 16 pixels")
    if config.max_steps is not None and config.max_steps < 1:
        raise InputError(f"max_steps {config.max_steps} leaves no step to take: give at least 1")
    if config.settle_steps < 0:
        raise InputError(f"settle_steps {config.settle_steps} is negative: give 0 or more")


def make_simulator(config: SimulatorConfig) -> Simulator:
    """Start the simulator of `config.suite`.

    Raises:
        InputError: unknown suite or task, assets that do not cover the suite, no OpenGL, simulator not installed.
    """
    check_config(config)
    from avavla_ray.simulators.libero.adapter import LiberoSimulator

    return LiberoSimulator(config)
