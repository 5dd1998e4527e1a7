"""An exponential moving average of the learning weights, sharded like the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from avavla_ray.errors import InputError
from avavla_ray.training.engine_shares import masters, publish, read_whole, shares


class WeightAverage:
    """average <- d average + (1 - d) weights after each optimizer step, with d = min(decay, (1 + n) / (10 + n)).

    The ramp over the number of updates n lets a young average forget its random start (TensorFlow's
    ExponentialMovingAverage with num_updates). Each rank averages the numbers that its optimizer steps, where they
    lie: a copy of all learning weights at ZeRO 0, 1/world of them at 1 to 3, on the CPU with offload.

    Attributes:
        decay: its limit. count: updates so far, n; set it when the average is loaded.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise InputError(f"an average with decay {decay}: give a number between 0 and 1, such as 0.999")
        self.decay, self.count = decay, 0
        self._engine = engine
        self._average = [master.detach().clone() for master in masters(engine)]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights; call it after each optimizer step."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self._average, masters(self._engine), 1.0 - decay)
        self.count += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the engine's module computes with the averaged weights and `full_state` gives them. Collective.

        Take no optimizer step inside. After an exception inside, the average stays in the engine: bringing the weights
        back needs every rank, and the others may have failed or wait elsewhere.
        """
        self._exchange()
        yield
        self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, master in zip(self._average, masters(self._engine), strict=True):
            kept = master.clone()
            master.copy_(average)
            average.copy_(kept)
        publish(self._engine)

    @torch.no_grad()
    def load(self, read: Callable[[str], Tensor], prefix: str = "policy.") -> None:
        """Continue from whole averaged weights, as `full_state` gives them inside `swapped`; set `count` as well.

        Args:
            read: gives the whole tensor of a name (without `prefix`).

        Raises:
            InputError: a tensor is missing or of another shape.
        """
        for share in shares(self._engine, prefix):
            if share.inside.stop > share.inside.start:
                whole = read_whole(read, share.name, share.shape)
                self._average[share.master].view(-1)[share.inside].copy_(whole.reshape(-1)[share.part])
