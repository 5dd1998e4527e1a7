"""Success-filtered task sampling: more episodes of the tasks that are neither hopeless nor solved.

Advantages vanish where every attempt ends alike, so that episodes of such tasks teach next to nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from avavla_ray.simulators.base import EpisodeSummary

WINDOW = 20
KNOWN = 10


class Curriculum:
    """Weights of tasks from their last outcomes.

    Args:
        low, high: a task whose success rate lies between them, both included, or is not known yet has weight 1.
        floor: weight of the others, above 0, so that it is noticed when they become harder or easier.
        window: outcomes of a task that its rate is of. known: with fewer than so many its rate is not known.
    """

    def __init__(
        self, low: float = 0.1, high: float = 0.9, floor: float = 0.2, *, window: int = WINDOW, known: int = KNOWN
    ) -> None:
        self._low, self._high, self._floor, self._window, self._known = low, high, floor, window, known
        self._outcomes: dict[int, deque[bool]] = {}

    def saw(self, episodes: Sequence[EpisodeSummary]) -> None:
        """Take note of episodes that ended. What a simulator's death ended is no outcome and not among them."""
        for episode in episodes:
            outcomes = self._outcomes.setdefault(episode.task, deque(maxlen=self._window))
            outcomes.append(episode.success)

    def rates(self) -> dict[int, float]:
        """Success rates by task, of those that are known."""
        return {
            task: sum(outcomes) / len(outcomes)
            for task, outcomes in sorted(self._outcomes.items()) if len(outcomes) >= self._known
        }  # fmt: skip

    def weights(self) -> dict[int, float]:
        """By task, of those whose rate is known; all others have weight 1."""
        return {
            task: 1.0 if self._low <= rate <= self._high else self._floor
            for task, rate in self.rates().items()
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {"outcomes": {task: list(outcomes) for task, outcomes in self._outcomes.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`; of longer windows than this one's the newest outcomes are kept."""
        self._outcomes = {
            task: deque(outcomes, maxlen=self._window) for task, outcomes in state["outcomes"].items()
        }  # fmt: skip
