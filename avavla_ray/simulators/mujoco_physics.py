"""MuJoCo for simulators built on it directly: imported for machines without a screen, its failures said aloud."""

from __future__ import annotations

import logging
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorFailure
from avavla_ray.simulators.opengl import choose_renderer

_DIVERGED = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")


def load_mujoco() -> Any:
    """The module mujoco, set to render without a screen.

    Raises:
        InputError: it is not installed.
    """
    choose_renderer()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise InputError(f"the simulator needs {error.name}, which is not installed: run 'make setup'") from error
    log_warnings()
    return mujoco


def log_warnings() -> None:
    """Send MuJoCo's warnings to the log; of its own accord it writes MUJOCO_LOG.TXT into whatever folder it runs in."""
    import mujoco

    mujoco.set_mju_user_warning(logging.getLogger(__name__).warning)


def advance(model: Any, data: Any, steps: int) -> None:
    """`steps` physics steps of MuJoCo's MjModel and MjData.

    Raises:
        SimulatorFailure: the physics diverged or MuJoCo gave up; the state can't be trusted until it is reset.
    """
    import mujoco

    try:
        mujoco.mj_step(model, data, steps)
    except mujoco.FatalError as error:
        raise SimulatorFailure(f"MuJoCo gave up: {error}") from error
    # MuJoCo answers a diverged state with a warning and a silent reset to the model's default pose.
    bad = [name for name in _DIVERGED if data.warning[getattr(mujoco.mjtWarning, name)].number]
    if bad:
        raise SimulatorFailure(f"the physics diverged: {', '.join(bad)}")
