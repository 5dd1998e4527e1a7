"""Which calvin_env a test uses: the fake beside this file, or the real one; never two mixed in one process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.simulators.calvin.adapter import CalvinSimulator

FAKE_ROOT = Path(__file__).resolve().parent / "fake_calvin_env"
BUTTON = np.array([-0.12, -0.12, 0.46])  # where the fake has the LED's button


def _forget_calvin_env() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "calvin_env"]:
        del sys.modules[name]


@contextlib.contextmanager
def calvin_env_at(root: Path) -> Iterator[None]:
    """CALVIN_ENV_ROOT names `root`, and no other calvin_env is imported before or remains so after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALVIN_ENV_ROOT", str(root))
        patch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "calvin_env").is_dir()])
        _forget_calvin_env()
        yield
        _forget_calvin_env()


def towards(simulator: CalvinSimulator, goal: np.ndarray) -> np.ndarray:
    """(1, 7) action that moves the hand towards `goal`."""
    way = (goal - simulator.robot_obs[:3]) / 0.02
    return np.array([[*way / max(1.0, abs(way).max()), 0, 0, 0, 1.0]])
