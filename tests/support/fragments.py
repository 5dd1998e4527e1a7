"""Fragments from a real rollout of the point simulator, for tests of what learns from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.orders import Order
from actors.placement import PolicyCopy
from actors.report import Report
from actors.rollout import Rollout
from actors.weights import WeightHandle
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import Simulator, SimulatorConfig
from tests.support.point_simulator import make_point_simulator, point_statistics

POINT = SimulatorConfig(suite="point", image_size=32)


def point_rollout(
    policy: AvaVlaPolicy,
    factory: Callable[[SimulatorConfig], Simulator] = make_point_simulator,
    *,
    simulators: int = 3,
    version: int = 0,
    **options: Any,
) -> Rollout:
    """Simulators of the point, or of `factory`, played by a copy of the policy."""
    copy = PolicyCopy(policy, point_statistics(), version=version)
    return Rollout(copy, factory, POINT, simulators=simulators, slots=simulators, **options)


def order(decisions: int, version: int = 0, **options: Any) -> Order:
    """Of weights that the rollout has already."""
    return Order(WeightHandle(version, ()), decisions, **options)


def lockstep(rollout: Rollout, decisions: int, version: int = 0) -> tuple[list[Fragment], Report]:
    """So many decisions in every simulator."""
    return rollout.deliver(order(decisions, version, lockstep=True))


def rollout_fragments(
    policy: AvaVlaPolicy, decisions: int = 12, simulators: int = 3, version: int = 0, seed: int = 0, **options: Any
) -> list[Fragment]:
    """One fragment of so many decisions per simulator."""
    rollout = point_rollout(policy, simulators=simulators, version=version, seed=(seed,), **options)
    return lockstep(rollout, decisions, version)[0]
