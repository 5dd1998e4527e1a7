"""Loaders of demonstrations that look at, or end, the process that they run in; a walk for a Ray worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from avavla_ray.demonstrations.decisions import Decisions, DrawLoader
from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.schedule import Request
from avavla_ray.demonstrations.windows import Batch, WindowSettings, WindowWalk
from avavla_ray.errors import InputError
from avavla_ray.training.loading import RayDataSource


def word_lengths(text: str) -> np.ndarray:
    """Stands in for a tokenizer."""
    return np.array([len(word) for word in text.split()][:4])


def walk_in_worker(
    mixture: Mixture,
    settings: WindowSettings,
    cut: dict[str, Any],
    state: dict[str, Any] | None,
    rank: int,
    world: int,
    count: int,
) -> tuple[list[Batch], dict[str, Any], list[str]]:
    """The next `count` batches after `state`, the state after them, and threads that loading left behind."""
    source = RayDataSource(TorchFreeLoader(mixture, settings), **cut)
    walk = WindowWalk(mixture, word_lengths, settings, rank=rank, world=world, source=source)
    if state is not None:
        walk.restore(state)
    batches = [walk.next() for _ in range(count)]
    walk.close()
    left = [thread.name for thread in threading.enumerate() if thread.name == "demonstrations"]
    return batches, walk.state(), left


class TorchFreeLoader(DrawLoader):
    """Refuses to go on where loading has brought torch into the process."""

    def __call__(self, request: Request) -> Decisions:
        decisions = super().__call__(request)
        modules = list(sys.modules)  # in the order of import: Ray reuses processes, so torch may have been there before
        if "torch" in modules and modules.index("torch") > modules.index("avavla_ray.training.loading"):
            raise InputError("loading a draw imported torch")
        return decisions


class StuckLoader(DrawLoader):
    """Takes longer than a test waits."""

    def __call__(self, request: Request) -> Decisions:
        time.sleep(5)
        return super().__call__(request)


class KilledLoader(DrawLoader):
    """Kills its process at the draw `victim`, once; `grave` is a file that remembers it."""

    victim: int
    grave: Path

    def __call__(self, request: Request) -> Decisions:
        if request.draw.number == self.victim and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(request)


class CountedLoader(DrawLoader):
    """Leaves a file in `folder` for each draw that it has loaded."""

    folder: Path

    def __call__(self, request: Request) -> Decisions:
        decisions = super().__call__(request)
        (self.folder / str(request.draw.number)).touch()
        return decisions
