"""Training ranks as processes that share one import of the libraries, which takes each of them 4 seconds otherwise."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp


def run_ranks(work: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Run `work(rank, *arguments)` in so many fresh processes, to their end.

    They are forks of one process that has imported everything and started no thread. Raises what one of them raised.
    """
    multiprocessing.set_forkserver_preload(["tests.support.rank_imports"])
    mp.start_processes(work, arguments, nprocs=ranks, start_method="forkserver")
