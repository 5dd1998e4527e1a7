"""Experts by suite: something that acts well enough to demonstrate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import Observation, Simulator
from avavla_ray.simulators.experts.cautious import Cautious
from avavla_ray.simulators.registry import entry_of, load, simulator_class


class NoExpert(InputError):
    """There is no scripted expert for a suite or a task; the message says why."""


class Expert(Protocol):
    """Acts one environment step at a time, with access to the true state of its simulator.

    Attributes:
        intended: (A,) float32, what the last `act` was before its noise; demonstrations record this.
    """

    intended: np.ndarray

    def act(self) -> np.ndarray:
        """(A,) float32 action in [-1, 1] to execute, in the environment's own convention."""
        ...

    @property
    def phase_name(self) -> str:
        """What it is doing, in a word; reports name it when the episode fails."""
        ...


def make_expert(simulator: Simulator, *, seed: int = 0, noise: float = 0.0, speed: float = 1.0) -> Expert:
    """An expert for the episode that `simulator` has just been reset to.

    Args:
        seed: of the noise. noise: standard deviation of the noise on the motion, in action units; see noise.py.
        speed: share of its own speed that the hand moves at; see cautious.py.

    Raises:
        NoExpert: its suite or its task has none.
        InputError: the simulator has not been reset, `noise` is negative or `speed` no share.
    """
    expert: Expert = load(_place(simulator.config.suite, type(simulator)))(simulator, seed=seed, noise=noise)
    return expert if speed == 1 else Cautious(expert, speed)


def check_suite(suite: str) -> None:
    """Raise NoExpert, without starting anything, when nobody has written an expert for `suite`."""
    _place(suite, simulator_class(suite))


def check_lead_in(suite: str, share: float) -> None:
    """Raise InputError when `share` is none, or tasks of `suite` do not follow on each other."""
    if not 0 <= share <= 1:
        raise InputError(f"lead-in {share} is no share: give 0 to 1")
    if share and entry_of(suite).after_another is None:
        raise InputError(f"{suite}: no task begins where another has ended; leave --lead-in out")


def after_another(simulator: Simulator, noise: float, speed: float) -> Callable[[int, int], Observation]:
    """What begins a task, by a seed, where the expert has just done another; the suite passes `check_lead_in`."""
    place = entry_of(simulator.config.suite).after_another
    assert place is not None
    begin = load(place)
    return lambda task, seed: begin(simulator, task, seed=seed, noise=noise, speed=speed)


def _place(suite: str, simulator: type[Simulator]) -> str:
    place: str | None = entry_of(suite).expert or getattr(simulator, "expert", None)
    if place is None:
        raise NoExpert(f"{suite} has no scripted expert: collect its demonstrations another way")
    return place
