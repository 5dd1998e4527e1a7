"""Which calvin_env a test uses: the fake beside this file, or the real one; never two mixed in one process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avavla_ray.simulators.base import ChunkResult, SimulatorConfig
from avavla_ray.simulators.calvin.adapter import CalvinSimulator
from avavla_ray.simulators.calvin.chains import CalvinWithExpert
from avavla_ray.simulators.isolated.faults import FaultPlan, strike

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
    return _step(simulator.robot_obs[:3], goal)[None]


def _step(hand: np.ndarray, goal: np.ndarray) -> np.ndarray:
    way = (goal - hand) / 0.02
    return np.array([*way / max(1.0, abs(way).max()), 0, 0, 0, 1.0])


class ButtonPath:
    """Up from wherever the hand is, then down onto the fake's button, so that it is pressed once."""

    def __init__(self) -> None:
        self._up = True

    def action(self, hand: np.ndarray) -> np.ndarray:
        """(7,) action for a hand (3,) there."""
        above = np.add(BUTTON, (0, 0, 0.1))
        self._up = self._up and bool(np.abs(hand - above).max() >= 0.01)
        return _step(hand, above if self._up else BUTTON)


class ButtonExpert:
    """Acts by the simulator's own state; the fake has no joints that the real experts could ask for."""

    phase_name = "press"

    def __init__(self, simulator: CalvinSimulator) -> None:
        self._simulator, self._path = simulator, ButtonPath()

    def act(self) -> np.ndarray:
        # The pictures and numbers that an observation holds are float32: so that both go the same way.
        self.intended = self._path.action(self._simulator.robot_obs[:3].astype(np.float32))
        return self.intended


class ButtonCalvin(CalvinWithExpert):
    """Its expert presses the button, and a plan's faults strike its process."""

    def __init__(self, plan: FaultPlan, config: SimulatorConfig) -> None:
        super().__init__(config)
        self._plan = plan

    def _expert_of_task(self) -> ButtonExpert:
        return ButtonExpert(self)

    def run_chunk(self, actions: np.ndarray, *, record: bool = False) -> ChunkResult:
        strike(self._plan.next_chunk() or "none")
        return super().run_chunk(actions, record=record)


def make_button_calvin(plan: FaultPlan, config: SimulatorConfig) -> ButtonCalvin:
    """A factory when its first argument is given."""
    return ButtonCalvin(plan, config)
