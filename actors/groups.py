"""Episodes that begin alike, for learning from how much better one did than the others (GRPO)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from avavla_ray.learning.fragment import Fragment, concatenate


@dataclass
class Group:
    """Episodes of one task and start.

    Attributes:
        to_begin: episodes that nobody plays yet. playing: those that are under way. ended: rows of the others.
    """

    task: int
    seed: int
    to_begin: int
    playing: int = 0
    ended: list[Fragment] = field(default_factory=list)


class EpisodeGroups:
    """Deals every start to `size` episodes, and holds their rows until all of them have ended.

    Args:
        start: draws a task and a seed.

    Attributes:
        dropped: groups of which fewer than two episodes ended, so that there was nothing to compare.
    """

    def __init__(self, size: int, start: Callable[[], tuple[int, int]]) -> None:
        self._size, self._start = size, start
        self._groups: list[Group] = []
        self._complete: list[Fragment] = []
        self.dropped = 0

    @property
    def begun(self) -> bool:
        """Whether `join` would add to a group that has begun."""
        return bool(self._groups) and self._groups[-1].to_begin > 0

    def join(self, allowed: Callable[[int], bool]) -> Group:
        """The group that the next episode belongs to. One whose task is no longer allowed stays smaller."""
        if self.begun and not allowed(self._groups[-1].task):
            group = self._groups[-1]
            group.to_begin = 0
            self._settle(group)
        if not self.begun:
            self._groups.append(Group(*self._start(), self._size))
        group = self._groups[-1]
        group.to_begin -= 1
        group.playing += 1
        return group

    def ended(self, group: Group, rows: Fragment | None) -> None:
        """An episode has ended; None: its simulator ended it."""
        group.playing -= 1
        if rows is not None:
            group.ended.append(rows)
        self._settle(group)

    def complete(self) -> list[Fragment]:
        """Whole groups, each in one fragment; each is handed out once."""
        complete, self._complete = self._complete, []
        return complete

    def give_up(self) -> None:
        """No unfinished episode will be finished."""
        for group in list(self._groups):
            group.to_begin = group.playing = 0
            self._settle(group)

    def _settle(self, group: Group) -> None:
        if group.to_begin or group.playing:
            return
        self._groups.remove(group)
        if len(group.ended) < 2:
            self.dropped += 1
            return
        whole = concatenate(group.ended)
        whole.group = np.zeros(len(whole), np.int64)
        self._complete.append(whole)
