"""An agent whose process dies once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from avavla_ray.policy.agent import Agent


class MortalAgent(Agent):
    """Kills its process at the decision of this number, unless `mark` tells that this was done before."""

    def __init__(self, agent: Agent, mark: Path, number: int) -> None:
        super().__init__(agent.policy, agent.statistics)
        self._mark, self._left = mark, number

    def decide(self, *args: Any, **options: Any) -> Any:
        """See `Agent.decide`."""
        self._left -= 1
        if self._left == 0 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decide(*args, **options)
