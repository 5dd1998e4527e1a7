"""Fragments from a real rollout of the point simulator, for tests of what learns from them."""

from __future__ import annotations

from actors.rollout import Rollout
from avavla_ray.learning.fragment import Fragment
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import make_point_simulator, point_statistics


def rollout_fragments(
    policy: AvaVlaPolicy, decisions: int = 12, simulators: int = 3, version: int = 0, seed: int = 0
) -> list[Fragment]:
    """One fragment of so many decisions per simulator."""
    config = SimulatorConfig(suite="point", image_size=32)
    agent = Agent(policy, point_statistics())
    rollout = Rollout(agent, make_point_simulator, config, simulators=simulators, slots=simulators, seed=(seed,))
    return rollout.collect(decisions, version)[0]
