"""Where processes of each kind spent their time, as text and picture, from seconds by path (avavla_ray/timing.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avavla_ray.files import atomic_path

SMALL = 0.02  # shares below this are drawn together
REST = "rest"  # of a span or a process, in none of the spans below it
WAITING = ("idle", "waiting")  # names of spans in which nothing is done


def kinds(timings: Mapping[str, float]) -> list[str]:
    """Kinds of processes in the trees, those that do the most first."""
    found = [path for path in timings if "/" not in path]
    return sorted(found, key=lambda kind: -sum(itself(timings, path) for path in timings if _works(path, kind)))


def _works(path: str, kind: str) -> bool:
    return path.startswith(f"{kind}/") and path.rpartition("/")[2] not in WAITING


def children(timings: Mapping[str, float], parent: str) -> list[str]:
    """Spans directly below another, the longest first."""
    depth = parent.count("/") + 1
    below = (path for path in timings if path.startswith(f"{parent}/") and path.count("/") == depth)
    return sorted(below, key=lambda path: -timings[path])


def itself(timings: Mapping[str, float], path: str) -> float:
    """Seconds of a span that are in none of those below it."""
    return max(0.0, timings[path] - sum(timings[child] for child in children(timings, path)))


def shares(timings: Mapping[str, float], kind: str) -> dict[str, float]:
    """What each path of a kind of process takes of its wall time, without what is below the path; they sum to 1.

    REST is what is in no span. Threads that work beside each other can fill more than the wall time, in which case the
    shares are of that sum.
    """
    below = [path for path in timings if path.startswith(f"{kind}/")]
    seconds = {path.removeprefix(f"{kind}/"): itself(timings, path) for path in below}
    seconds[REST] = itself(timings, kind)
    total = sum(seconds.values()) or 1.0
    return {path: spent / total for path, spent in sorted(seconds.items(), key=lambda item: -item[1])}


def describe(timings: Mapping[str, float]) -> str:
    """A tree for each kind of process, with shares of wall time; time in no span below is called "rest"."""
    lines: list[str] = []

    def add(path: str, level: int, whole: float) -> None:
        name = path.rpartition("/")[2]
        lines.append(f"{'  ' * level + name:<42}{100 * timings[path] / whole:6.1f} %{timings[path]:12.1f} s")
        below = children(timings, path)
        for child in below:
            add(child, level + 1, whole)
        if below and (rest := itself(timings, path)) >= 0.001 * whole:
            lines.append(f"{'  ' * (level + 1) + REST:<42}{100 * rest / whole:6.1f} %{rest:12.1f} s")

    for kind in kinds(timings):
        add(kind, 0, timings[kind] or 1.0)
        lines.append("")
    return "\n".join(lines)


def plot_timings(path: str | Path, timings: Mapping[str, float], title: str) -> None:
    """Draw a bar for each kind of process, divided by what it spent its time on, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = kinds(timings)
    figure, axes = plt.subplots(
        len(found), 1, figsize=(11, 0.6 + 1.55 * len(found)), layout="constrained", sharex=True, squeeze=False
    )
    colours = [matplotlib.colormaps["tab20"](index) for index in range(20)]
    for axis, kind in zip(axes[:, 0], found, strict=True):
        parts = shares(timings, kind)
        drawn = {name: share for name, share in parts.items() if share >= SMALL and name != REST}
        drawn["other spans"] = sum(share for name, share in parts.items() if name not in drawn and name != REST)
        drawn[REST] = parts[REST]
        left = 0.0
        for index, (name, share) in enumerate(drawn.items()):
            if share <= 0:
                continue
            colour: Any = {"other spans": "0.6", REST: "0.9"}.get(name, colours[(2 * index) % 20 + (index >= 10)])
            idle = name.rpartition("/")[2] in WAITING
            axis.barh(
                0, share, left=left, color="0.9" if idle else colour, edgecolor="0.65" if idle else "white",
                hatch="//" if idle else None, label=f"{name} {100 * share:.0f} %",
            )  # fmt: skip
            left += share
        axis.set_yticks([0], [kind])
        axis.set_xlim(0, 1)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=8, frameon=False)
    axes[-1, 0].set_xlabel("share of the processes' wall time")
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
