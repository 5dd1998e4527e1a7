"""Undo for an optimizer engine: put weights and optimizer state back to where they were, in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Rollback:
    """Remembers this rank's share of a DeepSpeed engine's weights and optimizer state; `restore` puts it back.

    A checkpoint would do the same through files; this costs one copy in memory, so that every update can afford it.
    """

    def __init__(self, engine: Any) -> None:
        optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
        shards = [getattr(parameter, "ds_tensor", parameter) for parameter in engine.module.parameters()]
        masters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._optimizer = optimizer
        self._weights: list[tuple[Tensor, Tensor]] = [(t, t.detach().clone()) for t in [*shards, *masters]]
        self._state = {
            parameter: {name: _copy(value) for name, value in entries.items()}
            for parameter, entries in optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, saved in self._weights:
            tensor.copy_(saved)
        state = self._optimizer.state
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
