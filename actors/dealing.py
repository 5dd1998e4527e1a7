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
        tasks: all of them. slot: position among the `slots` of all runners.
    """

    def __init__(self, tasks: Sequence[int], slot: int, slots: int) -> None:
        self._in_turn, self._slot, self._slots = TaskDealer(tasks, slot, slots), slot, slots
        self._dealt = 0

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
        place = (self._slot % self._slots + self._dealt * _GOLDEN % 1) / self._slots
        borders = list(accumulate(shares))
        index = bisect_right(borders, place * borders[-1])
        # A place is below 1, but its product may be rounded to the last border.
        return playable[min(index, max(i for i, share in enumerate(shares) if share > 0))]
