"""What to do about simulators that die: count, and leave out a task that kills one after the other.

A runner asks its own watchdog, so that it stops at once. The driver feeds one with what all runners report, and hands
its list to all of them, so that a bad task does not cost every runner its three deaths; since a sick machine kills the
simulators of every task, what dies on a single runner, or on a single one of several machines, is left out there and
nowhere else. What takes several simulators with it, as the loss of a machine does, is held against no task
(by an evaluation only if it ends the last attempt at an episode).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from avavla_ray.simulators.base import SimulatorFailure

KINDS = ("physics", "crash", "memory", "hang", "garbage")  # see SimulatorFailure
DEATHS_IN_A_ROW = 3


class NoTaskLeft(SimulatorFailure):
    """Every task is quarantined: there is nothing left to play.

    Attributes:
        quarantined: why, by task.
    """

    quarantined: Mapping[int, str] = {}


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a task ended: the episode ended (`kind` None), or its simulator did.

    Attributes:
        kind: of the SimulatorFailure. reason: in words.
        aborted: an episode was under way and is neither failed nor a success; else it had not begun.
        shared: others may have ended with it, and the task is not to blame.
    """

    task: int
    kind: str | None = None
    reason: str = ""
    aborted: bool = False
    shared: bool = False


class Watchdog:
    """Deaths of simulators by kind, and the tasks that are left out because of them.

    Args:
        tasks: that there are. limit: so many deaths of one task, without an episode of it that ends in between,
            quarantine it. witnesses: on so many runners; where these are on several machines, on so many of those.

    Attributes:
        quarantined: why, by task. deaths: how many, by kind.
    """

    def __init__(self, tasks: Sequence[int], limit: int = DEATHS_IN_A_ROW, witnesses: int = 1) -> None:
        self._tasks, self._limit, self._witnesses = tuple(tasks), limit, witnesses
        self._in_a_row: dict[int, list[tuple[int, str]]] = {}  # runner and machine of each death, by task
        self._machines: dict[int, str] = {}  # of each runner
        self.quarantined: dict[int, str] = {}
        self.deaths: Counter[str] = Counter()

    def saw(self, outcome: Outcome, runner: int = 0, machine: str = "") -> bool:
        """Take note of what happened on a runner; whether this outcome puts its task into quarantine."""
        if machine:
            self._machines[runner] = machine
        if outcome.kind is None:
            self._in_a_row.pop(outcome.task, None)
            return False
        self.deaths[outcome.kind] += 1
        if outcome.shared:
            return False
        seen = self._in_a_row.setdefault(outcome.task, [])
        seen.append((runner, machine))
        several = len(set(self._machines.values())) > 1
        witnesses = {place if several and place else who for who, place in seen}
        if outcome.task in self.quarantined or len(seen) < self._limit or len(witnesses) < self._witnesses:
            return False
        self.quarantined[outcome.task] = (
            f"task {outcome.task} is quarantined: its simulator died {len(seen)} times in a row, "
            f"the last time because {outcome.reason}"
        )
        return True

    def among(self, runners: Collection[int]) -> None:
        """Forget where all others were: they are gone, and who comes in their place may be elsewhere."""
        self._machines = {runner: machine for runner, machine in self._machines.items() if runner in runners}

    def adopt(self, quarantined: Mapping[int, str]) -> list[str]:
        """Leave out what somebody else has quarantined; why, for those that are new here."""
        new = {task: reason for task, reason in quarantined.items() if task not in self.quarantined}
        self.quarantined |= new
        return list(new.values())

    def playable(self) -> tuple[int, ...]:
        """The tasks that are not left out.

        Raises:
            NoTaskLeft: all are.
        """
        tasks = tuple(task for task in self._tasks if task not in self.quarantined)
        if not tasks:
            last = list(self.quarantined.values())[-1]
            failure = NoTaskLeft(f"no task is left to play, all {len(self._tasks)} are quarantined; {last}", "crash")
            failure.quarantined = dict(self.quarantined)
            raise failure
        return tasks


class TaskDealer:
    """Deals tasks round-robin over all simulator slots of all runners, without the runners talking to each other.

    A slot's next episode is `slots` further along the cycle of tasks, so that with at least as many slots as tasks a
    slot keeps its task (changing a task rebuilds the simulator), and with fewer every task still gets its turn.

    Attributes:
        slot: position among the `slots` of all runners. Both may change when runners come and go.
    """

    def __init__(self, tasks: Sequence[int], slot: int, slots: int) -> None:
        self._tasks, self.slot, self.slots = tuple(tasks), slot, slots
        self._dealt = 0

    def deal(self, playable: Sequence[int]) -> int:
        """The slot's next task. The turns of a quarantined task go to the others in turn, which else keep theirs."""
        turn, place = divmod(self.slot + self._dealt * self.slots, len(self._tasks))
        self._dealt += 1
        task = self._tasks[place]
        return task if task in playable else playable[turn % len(playable)]
