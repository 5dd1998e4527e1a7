"""The latent loop alone, in the paper's sizes: early exit against fixed depths, and fixed depths compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from avavla_ray.policy.config import PAPER_LATENT, PAPER_THRESHOLDS
from avavla_ray.policy.latent_loop import LatentLoop
from benchmarks.policy_cost.depth import QUICK_DEPTHS, measure_depths, sweep_table
from benchmarks.policy_cost.subjects import MAX_DEPTH, make_loop, thinker
from benchmarks.policy_cost.timing import time_in_turns
from benchmarks.simulator_cost.tables import table


@dataclass(frozen=True)
class LatentReport:
    """Numbers by key, and tables."""

    numbers: dict[str, float]
    markdown: str


def measure_latent(
    device: str, seconds: float, now: Callable[[], float], *, quick: bool, compiled: bool
) -> LatentReport:
    """Depths and thresholds by batch size; with `compiled` also what torch.compile gains at full depth."""
    loop = make_loop(PAPER_LATENT, device)
    batches = (1,) if quick else (1, 4, 32)
    threshold = PAPER_LATENT.exit_threshold
    sweeps = {
        batch: measure_depths(
            thinker(loop, batch, device, 2 if quick else max(2, 16 // batch), PAPER_LATENT.max_steps),
            seconds / len(batches), now,
            depths=QUICK_DEPTHS if quick else range(MAX_DEPTH + 1),
            thresholds=(threshold,) if quick else PAPER_THRESHOLDS,
        )
        for batch in batches
    }  # fmt: skip
    numbers: dict[str, float] = {}
    for batch, sweep in sweeps.items():
        numbers[f"latent.adaptive_over_fixed_batch_{batch}"] = sweep.adaptive_over_fixed(threshold)
        numbers |= sweep.flat(f"latent.batch_{batch}.")
    markdown = sweep_table(sweeps)
    if compiled:
        gains = _compiled_over_plain(loop, batches, device, seconds / len(batches), now)
        numbers |= {f"latent.compile_speedup_batch_{batch}": plain / fast for batch, (plain, fast) in gains.items()}
        head = ["batch", f"depth {MAX_DEPTH}, plain ms", "compiled ms", "plain / compiled"]
        markdown += "\n" + table(head, [[batch, plain, fast, plain / fast] for batch, (plain, fast) in gains.items()])
    return LatentReport(numbers, markdown)


def _compiled_over_plain(
    loop: LatentLoop, batches: Sequence[int], device: str, seconds: float, now: Callable[[], float]
) -> dict[int, tuple[float, float]]:
    """Milliseconds of the full depth by batch size, plain and compiled; `seconds` for each."""
    faster = copy.deepcopy(loop)
    faster.compile()
    found = {}
    for batch in batches:
        cases: dict[str, list[Callable[[], Any]]] = {
            name: [partial(query, depth=MAX_DEPTH) for query in thinker(each, batch, device, 2, MAX_DEPTH)]
            for name, each in (("plain", loop), ("compiled", faster))
        }
        taken = time_in_turns(cases, seconds, now)
        found[batch] = taken["plain"].mean, taken["compiled"].mean
    return found
