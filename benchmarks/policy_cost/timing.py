"""Cases that are timed in turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

_Name = TypeVar("_Name")


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a case over its queries; each query counts with its median over the rounds.

    Attributes:
        p90: of 10 queries, 9 take at most this long.
    """

    mean: float
    p90: float


def clock(device: str, threads: int) -> Callable[[], float]:
    """Seconds: on one thread the processor's own time, which other processes disturb less; else the wall clock, after
    what the device was given is done."""
    import torch

    if device == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronised
    return time.process_time if threads == 1 else time.perf_counter


def time_in_turns(
    cases: Mapping[_Name, Sequence[Callable[[], Any]]], seconds: float, now: Callable[[], float]
) -> dict[_Name, Timing]:
    """Time each case's queries; query by query all cases take a turn, until `seconds` are over, three rounds at least.

    Args:
        cases: as many queries each.
    """
    for queries in cases.values():
        for query in queries:
            query()
    taken: dict[_Name, list[list[float]]] = {name: [[] for _ in queries] for name, queries in cases.items()}
    count, rounds = len(next(iter(cases.values()))), 0
    end = time.perf_counter() + seconds
    while rounds < 3 or time.perf_counter() < end:
        for place in range(count):
            for name, queries in cases.items():
                start = now()
                queries[place]()
                taken[name][place].append(1e3 * (now() - start))
        rounds += 1
    return {name: _timing([statistics.median(query) for query in queries]) for name, queries in taken.items()}


def _timing(medians: list[float]) -> Timing:
    ordered = sorted(medians)
    return Timing(statistics.fmean(ordered), ordered[min(int(0.9 * len(ordered)), len(ordered) - 1)])
