"""Undo for an optimizer engine: put weights and optimizer state back to where they were, in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avavla_ray.training.engine_shares import masters, publish


class Rollback:
    """Remembers this rank's share of a DeepSpeed engine's weights and optimizer state; `restore` puts it back.

    A checkpoint would do the same through files; this costs one copy in memory, so that every update can afford it.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._masters = [master.detach().clone() for master in masters(engine)]
        self._state = {
            parameter: {name: _copy(value) for name, value in entries.items()}
            for parameter, entries in engine.optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Collective."""
        for master, saved in zip(masters(self._engine), self._masters, strict=True):
            master.copy_(saved)
        publish(self._engine)
        state = self._engine.optimizer.state
        for parameter in list(state):
            if parameter not in self._state:
                del state[parameter]
        for parameter, entries in self._state.items():
            for name, saved in entries.items():
                present = state[parameter].get(name)
                if isinstance(present, Tensor) and isinstance(saved, Tensor):
                    present.copy_(saved)
                else:
                    state[parameter][name] = _copy(saved)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
