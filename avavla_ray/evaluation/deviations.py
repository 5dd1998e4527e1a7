"""How an evaluation differs from what its benchmark publishes; every result names it. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avavla_ray.simulators.base import SimulatorConfig, SuiteSpec


def episode_deviations(suite: SuiteSpec, config: SimulatorConfig, data: Mapping[str, Any], episodes: int) -> list[str]:
    """Of episodes from the benchmark's fixed initial states.

    Args:
        data: what the simulator's `identify` says. episodes: initial states a task.
    """
    found = [suite.deviation] if suite.deviation else []
    if config.render != "reference":
        found.append(f"render {config.render} instead of reference")
    if data.get("assets", "official") != "official":
        found.append(f"assets {config.assets} instead of official")
    if config.max_steps not in (None, suite.max_steps):
        found.append(f"{config.max_steps} steps instead of {suite.max_steps}")
    if episodes < suite.num_initial_states:
        found.append(f"{episodes} initial states a task instead of {suite.num_initial_states}")
    if config.tasks:
        found.append(f"tasks {list(config.tasks)} only")
    return found


def chain_deviations(config: SimulatorConfig, sequences: int, *, experts: bool = False) -> list[str]:
    """Of CALVIN's chains.

    Args:
        config: of the suite calvin_a to calvin_d. sequences: how many of the published ones, from the first.
        experts: the scripted experts play.
    """
    from avavla_ray.simulators.calvin.adapter import MAX_STEPS
    from avavla_ray.simulators.calvin.sequences import COUNT

    found = []
    if config.suite != "calvin_d":
        found.append(f"scene {config.suite[-1].upper()} instead of D")
    if config.render != "reference":
        found.append(f"render {config.render} instead of reference")
    if config.max_steps not in (None, MAX_STEPS):
        found.append(f"{config.max_steps} steps a task instead of {MAX_STEPS}")
    if sequences != COUNT:
        found.append(f"the first {sequences} sequences instead of {COUNT:,}")
    if experts:
        found.append("scripted experts, which see the simulator's state")
    return found
