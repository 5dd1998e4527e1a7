"""Simulators whose process dies or complains while it starts. Here, where nothing starts threads when imported, one
process can fork them all."""

from __future__ import annotations

import os
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import PointSimulator


def make_dying_starter(order: Path, config: SimulatorConfig) -> PointSimulator:
    """As `order`, a file, says: "die", "complain", or start."""
    said = order.read_text() if order.exists() else ""
    if said == "die":
        os._exit(9)
    if said == "complain":
        raise InputError("no such assets any more")
    return PointSimulator(config)
