"""What the driver asks of a runner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.weights import WeightHandle
from avavla_ray.errors import InputError


class NotStarted(RuntimeError):
    """A runner is asked to play that has not been started: it is another process than the one that was."""


@dataclass(frozen=True)
class Order:
    """Play on with these weights and deliver.

    Attributes:
        handle: the newest weights.
        decisions: T, of a fragment.
        quarantined: tasks not to begin any more, and why.
        task_weights: how often to play the tasks, in relation to each other; those that are not named weigh 1.
        place: of the runner among those that play now, counted from 0, and how many these are: what a runner is dealt
            of the tasks. None: it stays where it was.
        hold: begin no chunk: those that are under way are finished, and what has ended is handed in. For a runner that
            gets no other order for a while, so that its finished episodes do not wait with it.
        last: the runner is let go: it finishes its chunks and hands in everything, and takes no order any more.
        lockstep: exactly T decisions in every simulator with these weights, and nothing in flight afterwards, which is
            what synchronous PPO learns from. A runner that dies loses what it has played of the round, even episodes
            that had ended. Else the runner plays on, and whatever is complete is delivered at once.

    Raises:
        InputError: fewer than one decision, or a weight that is negative or not finite.
    """

    handle: WeightHandle
    decisions: int
    quarantined: Mapping[int, str] = field(default_factory=dict)
    task_weights: Mapping[int, float] = field(default_factory=dict)
    place: tuple[int, int] | None = None
    hold: bool = False
    last: bool = False
    lockstep: bool = False

    def __post_init__(self) -> None:
        if self.decisions < 1:
            raise InputError(f"an order of {self.decisions} decisions: give at least 1")
        for task, weight in self.task_weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"weight {weight} of task {task}: give 0 or more")
