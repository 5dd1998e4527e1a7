"""Simulators that take their time. Here, where nothing starts threads when imported, one process can fork them all."""

from __future__ import annotations

import time

from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import PointSimulator


class SlowStarter(PointSimulator):
    """Its first task takes half a second to begin."""

    def reset(self, task, *, initial_state=None, seed=0):
        time.sleep(0.5 * (task == 0))
        return super().reset(task, initial_state=initial_state, seed=seed)


class Slow(PointSimulator):
    """Its chunks take so long that another buffer lands whenever somebody looks for one that hangs."""

    def run_chunk(self, actions, *, record=False):
        time.sleep(0.29)
        return super().run_chunk(actions, record=record)


def make_slow_starter(config: SimulatorConfig) -> SlowStarter:
    return SlowStarter(config)


def make_slow(config: SimulatorConfig) -> Slow:
    return Slow(config)
