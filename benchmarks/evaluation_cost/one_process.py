"""A process that plays one episode after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from actors.evaluation_actors import Evaluator
from actors.evaluation_pool import Episode


class OneProcess(Evaluator):
    """A loop over episodes: simulator and policy in this process."""

    def turn(self, episodes: Sequence[Episode]) -> tuple[float, list[Any]]:
        """The seconds that they took, and their records."""
        begun = time.perf_counter()
        records = [self.play(episode, 1)[0] for episode in episodes]
        return time.perf_counter() - begun, records
