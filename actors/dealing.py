"""Which task a simulator plays next, without the runners talking to each other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from actors.watchdog import TaskDealer

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill [0, 1) as evenly as any


class WeightedDealer:
    """Deals tasks to one of `slots` simulators: each its turn, or as often as weights say.

    With weights the slots stand evenly along [0, 1), which the tasks divide in proportion; a slot moves only within the
    distance to the next one. So at any time the slots share out the tasks as evenly as whole numbers let them, every
    slot keeps its task, hence its scene, unless it stands on a border, and over time every share is exact.

    Args:
        tasks: all of them. slot: position among the `slots` of all runners. mates: slots of a runner, which follow each
            other.
    """

    def __init__(self, tasks: Sequence[int], slot: int, slots: int, mates: int = 1) -> None:
        self._in_turn, self._mates = TaskDealer(tasks, slot, slots), mates
        self._dealt = 0

    def stand(self, place: int, of: int) -> None:
        """The slot's runner is number `place`, from 0, of so many that play now.

        Those that are absent get no share, or what stands on it would be played by nobody.
        """
        turns = self._in_turn
        turns.slot, turns.slots = place * self._mates + turns.slot % self._mates, of * self._mates

    def deal(self, playable: Sequence[int], weights: Mapping[int, float]) -> int:
        """The slot's next task.

        Args:
            playable: tasks that are not quarantined. weights: those that are not named weigh 1. Equal ones, or all 0,
                are no weights.
        """
        shares = [weights.get(task, 1.0) for task in playable]
        if len(set(shares)) == 1:
            return self._in_turn.deal(playable)
        self._dealt += 1
        slot, slots = self._in_turn.slot, self._in_turn.slots
        place = (slot % slots + self._dealt * _GOLDEN % 1) / slots
        borders = list(accumulate(shares))
        index = bisect_right(borders, place * borders[-1])
        # A place is below 1, but its product may be rounded to the last border.
        return playable[min(index, max(i for i, share in enumerate(shares) if share > 0))]
