"""Processor time of everything that this process has started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import psutil

Reading = dict[int, tuple[str, float]]


def processor_seconds(runners: Collection[int]) -> Reading:
    """Kind, and user and system seconds so far, of this process and of all below it, by process id.

    Args:
        runners: ids of the runners' processes; what they have started is of kind "simulators".
    """
    here = psutil.Process()
    found = dict.fromkeys(here.children(recursive=True), "rest")
    for process in list(found):
        if process.pid in runners:
            found |= dict.fromkeys(process.children(recursive=True), "simulators")
            found[process] = "runners"
    reading = Reading()
    for process, kind in [(here, "driver"), *found.items()]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue  # it has ended meanwhile
        reading[process.pid] = kind, times.user + times.system
    return reading


def spent(before: Reading, after: Reading) -> Counter[str]:
    """Seconds between two readings, by kind."""
    seconds = Counter[str]()
    for process, (kind, now) in after.items():
        seconds[kind] += now - before[process][1] if process in before else now  # type: ignore[assignment]
    return seconds
