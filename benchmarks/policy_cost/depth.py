"""What thinking costs: fixed depths against early exit, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from avavla_ray.policy.config import PAPER_THRESHOLDS
from benchmarks.policy_cost.timing import Timing, time_in_turns
from benchmarks.simulator_cost.tables import table

QUICK_DEPTHS, QUICK_THRESHOLDS = (0, 1, 3, 5, 10), (0.40, 0.55, 0.75)


@dataclass(frozen=True)
class Sweep:
    """Timings of the same queries at each fixed depth and each threshold; steps: mean latent steps by threshold."""

    depths: dict[int, Timing]
    thresholds: dict[float, Timing]
    steps: dict[float, float]

    def at_depth(self, steps: float) -> float:
        """Milliseconds at a fixed depth, interpolated between those measured."""
        measured = sorted(self.depths)
        above = next(depth for depth in measured[1:] if depth >= steps)
        below = measured[measured.index(above) - 1]
        low, high = self.depths[below].mean, self.depths[above].mean
        return low + (steps - below) / (above - below) * (high - low)

    def adaptive_over_fixed(self, threshold: float) -> float:
        """Milliseconds with early exit over those at the same mean depth held fixed."""
        return self.thresholds[threshold].mean / self.at_depth(self.steps[threshold])

    def worst_ratio(self) -> float:
        """Over the thresholds."""
        return max(self.adaptive_over_fixed(threshold) for threshold in self.thresholds)

    def flat(self, prefix: str) -> dict[str, float]:
        """For a JSON file."""
        numbers: dict[str, float] = {}
        for depth, timing in self.depths.items():
            numbers |= {f"{prefix}depth_{depth}_ms": timing.mean, f"{prefix}depth_{depth}_ms_p90": timing.p90}
        for threshold, timing in self.thresholds.items():
            name = f"{prefix}threshold_{threshold:.2f}"
            numbers |= {
                f"{name}_ms": timing.mean,
                f"{name}_ms_p90": timing.p90,
                f"{name}_steps": self.steps[threshold],
                f"{name}_over_fixed": self.adaptive_over_fixed(threshold),
            }
        return numbers


def measure_depths(
    queries: Sequence[Callable[..., Tensor]],
    seconds: float,
    now: Callable[[], float],
    *,
    depths: Sequence[int],
    thresholds: Sequence[float] = PAPER_THRESHOLDS,
) -> Sweep:
    """Time each query at each depth and threshold.

    Args:
        queries: take `depth` or `exit_threshold`, return steps taken (B,).
        depths: ascending, from 0 to at least the steps that early exit can take.
    """
    cases: dict[tuple[str, Any], list[Callable[[], Any]]] = {
        ("depth", depth): [partial(query, depth=depth) for query in queries] for depth in depths
    }
    for threshold in thresholds:
        cases["threshold", threshold] = [partial(query, exit_threshold=threshold) for query in queries]
    steps = {
        threshold: statistics.fmean(float(step) for query in queries for step in query(exit_threshold=threshold))
        for threshold in thresholds
    }
    taken = time_in_turns(cases, seconds, now)
    return Sweep(
        {depth: taken["depth", depth] for depth in depths},
        {threshold: taken["threshold", threshold] for threshold in thresholds},
        steps,
    )


def sweep_table(sweeps: dict[int, Sweep]) -> str:
    """Markdown, a line a depth or threshold; sweeps by batch size."""
    head = ["case"]
    for batch in sweeps:
        head += [f"steps, batch {batch}", "ms", "P90 ms", "over fixed"]
    first = next(iter(sweeps.values()))
    # Every batch size is measured at the same depths and thresholds.
    lines: list[list[object]] = []
    for depth in first.depths:
        line: list[object] = [f"depth {depth}"]
        for sweep in sweeps.values():
            line += [depth, sweep.depths[depth].mean, sweep.depths[depth].p90, ""]
        lines.append(line)
    for threshold in first.thresholds:
        line = [f"threshold {threshold:.2f}"]
        for sweep in sweeps.values():
            timing = sweep.thresholds[threshold]
            line += [sweep.steps[threshold], timing.mean, timing.p90, sweep.adaptive_over_fixed(threshold)]
        lines.append(line)
    return table(head, lines)
