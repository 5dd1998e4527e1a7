"""What the driver knows of one runner."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ray.exceptions import RayError, RayTaskError

from actors.orders import NotStarted
from actors.watchdog import NoTaskLeft
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorFailure


class Stage(Enum):
    """Where a runner stands; see runner_pool.py."""

    COMING = "coming"  # asked for; no process has said hello yet
    STARTING = "starting"
    PLAYING = "playing"
    LEAVING = "leaving"  # its node is about to go; when it has, Ray puts the actor elsewhere


@dataclass(frozen=True)
class Request:
    """An order that a runner has. References belong to the driver, so that what is delivered survives its maker.

    Attributes:
        round: count of the orders' rounds, which matters in lockstep. node: of the runner.
    """

    fragments: Any
    report: Any
    round: int
    node: str


@dataclass
class Runner:
    """The runner in a seat.

    Attributes:
        actor: its handle. call: its hello or its start, until that is answered. asked: when the last hello was sent.
        since: when the stage began, the last delivery came, or an idle runner got an order: what timeouts count from.
        place: node and pid of the process that starts or plays. left: of the one that was given up, whose answer to a
            hello is no return.
        orders: not delivered yet, the oldest first. held: it has been told to hold since its last other order.
        thanked: before it left, it has been told that all it had is safe.
    """

    seat: int
    actor: Any
    since: float
    stage: Stage = Stage.COMING
    call: Any = None
    asked: float = float("-inf")
    place: tuple[str, int] = ("", 0)
    left: tuple[str, int] | None = None
    orders: deque[Request] = field(default_factory=deque)
    held: bool = True
    thanked: bool = False

    @property
    def idle(self) -> bool:
        """It could play and has no order."""
        return self.stage is Stage.PLAYING and not self.orders

    def enter(self, stage: Stage, now: float) -> None:
        self.stage, self.since = stage, now


def place_of(answer: Mapping[str, Any]) -> tuple[str, int]:
    """Node and pid of the process that has said hello."""
    return answer["node"], answer["pid"]


class Verdict(Enum):
    """What an error says about the runner that it came from."""

    FATAL = "the run can't go on"
    DEAD = "its process or its node is gone"
    SICK = "a fresh process may do better, since its machine may be at fault"
    NO_WEIGHTS = "they were lost with the machine that held them; the runner is well"
    STRANGE = "a fault of the program"


def judge(error: RayError, quarantined: Mapping[int, str]) -> tuple[Verdict, Exception]:
    """What is wrong, and the error in question.

    Args:
        quarantined: what all runners leave out: one that leaves out more than that is at fault itself.
    """
    if not isinstance(error, RayTaskError):
        return Verdict.DEAD, error
    cause = error.cause
    if isinstance(cause, InputError):
        return Verdict.FATAL, cause
    if isinstance(cause, NoTaskLeft) and cause.quarantined.keys() <= quarantined.keys():
        return Verdict.FATAL, cause
    if isinstance(cause, SimulatorFailure):
        return Verdict.SICK, cause
    if isinstance(cause, NotStarted):
        return Verdict.DEAD, cause
    return (Verdict.NO_WEIGHTS, cause) if isinstance(cause, RayError) else (Verdict.STRANGE, error)
