"""What the driver asks of a runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.weights import WeightHandle


@dataclass(frozen=True)
class Order:
    """One delivery of fragments.

    Attributes:
        handle: the newest weights, which the runner pulls if its own are older.
        decisions: T, the most that a fragment holds.
        quarantined: tasks not to begin any more, and why.
        task_weights: how often to begin a task, relative to the others; 1 for those that are not named.
        lockstep: exactly T decisions in every simulator, then everything is delivered and nothing is played until the
            next order. Otherwise whatever is complete is delivered as soon as anything is, and simulators go on.
    """

    handle: WeightHandle
    decisions: int
    quarantined: Mapping[int, str] = field(default_factory=dict)
    task_weights: Mapping[int, float] = field(default_factory=dict)
    lockstep: bool = False
