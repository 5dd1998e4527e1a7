"""What an expert knows of a LIBERO scene, and what its skills answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from avavla_ray.simulators.experts.geometry import SolidPoints
from avavla_ray.simulators.experts.hand import Hand

if TYPE_CHECKING:
    from avavla_ray.simulators.libero.adapter import LiberoSimulator

LATTICE = 0.008


@dataclass(frozen=True)
class Motion:
    """What a skill wants of the next environment step.

    Attributes:
        position: (3,) where the grip site should be, metres. rotation: (3, 3) how it should be turned, in the world.
        gripper: `OPEN` or `CLOSE`.
        delicate: noise would spoil it. speed: share of full speed to move at.
    """

    position: np.ndarray
    rotation: np.ndarray
    gripper: float
    delicate: bool = False
    speed: float = 1.0


class Skill(Protocol):
    """Works towards one goal, one environment step at a time.

    Attributes:
        finished: it has done all that it does; whether that met the goal is for the task to say.
        phase_name: what it is doing, in a word.
    """

    finished: bool

    @property
    def phase_name(self) -> str: ...

    def step(self) -> Motion:
        """What to do next; not to be called once finished."""
        ...


class Scene:
    """The true state of a LIBERO task.

    Attributes:
        model, data: MuJoCo's. domain: LIBERO's problem, with its names of things. hand: the robot's.
        goals: the task's predicates, such as ["on", "bowl_1", "plate_1"].
    """

    def __init__(self, model: Any, data: Any, domain: Any) -> None:
        self.model, self.data, self.domain = model, data, domain
        self.hand = Hand(model, data)
        self.goals = [list(goal) for goal in domain.parsed_problem["goal_state"]]

    @classmethod
    def of(cls, simulator: LiberoSimulator) -> Scene:
        """The scene of a simulator that has been reset."""
        return cls(simulator.model, simulator.data, simulator.env.env)

    def holds(self, goal: list[str]) -> bool:
        """Whether LIBERO's own check of `goal` says yes now."""
        return bool(self.domain._eval_predicate(goal))

    def body(self, name: str) -> int:
        """Id of the root body of an object or a fixture."""
        return int(self.domain.obj_body_id[name])

    def solids(self, excluding: str) -> list[SolidPoints]:
        """Dense points of every object and fixture but one."""
        bodies = {int(body) for name, body in self.domain.obj_body_id.items() if name != excluding}
        return [SolidPoints(self.model, body, spacing=LATTICE) for body in sorted(bodies)]
