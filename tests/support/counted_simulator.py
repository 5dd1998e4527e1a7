"""A simulator that leaves a file for each one that is made."""

from __future__ import annotations

import uuid
from pathlib import Path

from avavla_ray.simulators.base import SimulatorConfig
from tests.support.point_simulator import PointSimulator


def make_counted_simulator(folder: Path, config: SimulatorConfig) -> PointSimulator:
    """A factory when its first argument is given."""
    (folder / uuid.uuid4().hex).touch()
    return PointSimulator(config)
