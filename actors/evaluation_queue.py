"""What an evaluation has still to play, who plays what next, and what becomes of what its simulator ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from actors.watchdog import Outcome, Watchdog

ATTEMPTS = 3


class Play(Protocol, Hashable):
    """Something to play in a simulator: an episode, or a chain of tasks. Frozen and picklable."""

    @property
    def task(self) -> int:
        """What a simulator has to load for it: what is of the same task is played one after the other, and
        quarantined together."""
        ...

    def play(self, simulator: Any, agent: Any, attempt: int) -> tuple[Any, Any]:
        """Play it once, for the `attempt`-th time; its record, and its pictures if they are wanted.

        Raises:
            SimulatorFailure: the simulator broke.
        """
        ...

    def lost(self, error: str, attempts: int, quarantined: bool) -> Any:
        """The record of one that is given up after so many attempts."""
        ...


Finished = Callable[[Any, Any, Any], bool | None]


class EvaluationQueue:
    """One call of `EvaluationPool.play`.

    Args:
        plays: to play. watchdog: what earlier calls know of tasks that kill simulators.
        finished: takes each with its record; returning True it ends the rest.

    Attributes:
        loaded: the task of each actor, which outlasts the call. actors: how many there are: what died on one is kept
            for another that it has not died on, since it may be the machine that is sick.
    """

    def __init__(
        self, plays: Iterable[Play], loaded: dict[int, int], watchdog: Watchdog, finished: Finished
    ) -> None:  # fmt: skip
        self.loaded, self.actors = loaded, 1
        self._waiting: dict[int, deque[Play]] = {}
        for play in plays:
            self._waiting.setdefault(play.task, deque()).append(play)
        self._watchdog, self._finished = watchdog, finished
        self._attempts: Counter[Play] = Counter()
        self._died_on: dict[Play, set[int]] = {}
        self._for_others: list[Play] = []  # than those that they died on
        self._ended = False
        for task in [task for task in self._waiting if task in watchdog.quarantined]:
            self._quarantine(task)

    def __len__(self) -> int:
        return len(self._for_others) + sum(map(len, self._waiting.values()))

    def take(self, actor: int) -> tuple[Play, int] | None:
        """The next for this actor, and the number of the attempt at it: one that died on others, else of the task that
        it has loaded, else of one that no other has, else of the one that is longest from its end."""
        again = [play for play in self._for_others if actor not in self._died_on[play]]
        if again:
            play = next((play for play in again if play.task == self.loaded.get(actor)), again[0])
            self._for_others.remove(play)
            self.loaded[actor] = play.task
            return play, self._attempts[play] + 1
        if not self._waiting:
            return None
        task = self.loaded.get(actor)
        if task not in self._waiting:
            others = Counter(task for other, task in self.loaded.items() if other != actor)
            fresh = (task for task in self._waiting if task not in others)
            task = next(fresh, None)
            if task is None:
                task = max(self._waiting, key=lambda each: len(self._waiting[each]) / others[each])
        play = self._waiting[task].popleft()
        if not self._waiting[task]:
            del self._waiting[task]
        self.loaded[actor] = task
        return play, self._attempts[play] + 1

    def settle(self, play: Play, record: Any, pictures: Any, actor: int = 0, machine: str = "") -> None:
        """It was played to its end on this actor."""
        self._watchdog.saw(Outcome(play.task), actor, machine)
        self._hand_over(play, record, pictures)

    def abort(
        self, play: Play, kind: str, reason: str, actor: int = 0, machine: str = "", shared: bool = False
    ) -> None:  # fmt: skip
        """It died on this actor: play it again, or give it up; so with all others of its task once that is
        quarantined.

        Args:
            shared: others may have gone with it, as a machine's do. The task is blamed only at the last attempt.
        """
        self._attempts[play] += 1
        shared = shared and self._attempts[play] < ATTEMPTS
        if self._watchdog.saw(Outcome(play.task, kind, reason, aborted=True, shared=shared), actor, machine):
            print(f"{self._watchdog.quarantined[play.task]}; the others go on", flush=True)
        if self._ended:
            return  # nobody waits for it
        title = f"{play}: {kind}: {reason}"
        if play.task in self._watchdog.quarantined:
            self._give_up(play, self._watchdog.quarantined[play.task], quarantined=True)
            self._quarantine(play.task)
        elif self._attempts[play] < ATTEMPTS:
            print(f"{title}; playing it again", flush=True)
            died_on = self._died_on.setdefault(play, set())
            died_on.add(actor)
            if len(died_on) < self.actors:
                self._for_others.append(play)
            else:
                self._waiting.setdefault(play.task, deque()).append(play)
        else:
            print(f"{title}; given up after {ATTEMPTS} attempts", flush=True)
            self._give_up(play, f"{kind}: {reason}")

    def _quarantine(self, task: int) -> None:
        again = [play for play in self._for_others if play.task == task]
        self._for_others = [play for play in self._for_others if play.task != task]
        for lost in [*again, *self._waiting.pop(task, ())]:
            self._give_up(lost, self._watchdog.quarantined[task], quarantined=True)

    def _give_up(self, play: Play, error: str, quarantined: bool = False) -> None:
        self._hand_over(play, play.lost(error, self._attempts[play], quarantined), None)

    def _hand_over(self, play: Play, record: Any, pictures: Any) -> None:
        if self._finished(play, record, pictures) is True:
            self._ended = True
            self._waiting.clear()
            self._for_others.clear()
