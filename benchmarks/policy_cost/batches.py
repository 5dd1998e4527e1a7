"""Decisions by batch size and share of visual tokens kept, at a fixed depth and with early exit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from avavla_ray.errors import InputError
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.openvla.config import OpenVlaConfig
from avavla_ray.policy.openvla.cost import decision_cost
from avavla_ray.policy.policy import AvaVlaPolicy
from benchmarks.policy_cost.subjects import PROMPT_TOKENS, decider
from benchmarks.policy_cost.timing import Timing, time_in_turns
from benchmarks.simulator_cost.tables import table

KEEPS = (1.0, 0.5, 0.3)
# Dense bfloat16 TFLOP/s by the makers' data sheets.
PEAK_TFLOPS = {
    "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "B200": 2250.0,
}  # fmt: skip


@dataclass(frozen=True)
class BatchRow:
    """A batch size at a keep ratio.

    Attributes:
        fixed, adaptive: at the configured depth, and with early exit at the configured threshold.
        steps: mean latent steps of the latter.
        peak_share: arithmetic of the model under the policy, by its fixed timing, over what the device can do at most;
            NaN where either is unknown. memory_gib: most that PyTorch held on the device; NaN on a CPU.
    """

    batch: int
    keep: float
    fixed: Timing
    adaptive: Timing
    steps: float
    peak_share: float
    memory_gib: float

    def flat(self) -> dict[str, float]:
        """For a JSON file."""
        name = f"batch_{self.batch}_keep_{self.keep:g}"
        numbers = {
            f"{name}_ms": self.fixed.mean,
            f"{name}_ms_p90": self.fixed.p90,
            f"{name}_decisions_per_s": 1e3 * self.batch / self.fixed.mean,
            f"{name}_adaptive_ms": self.adaptive.mean,
            f"{name}_adaptive_ms_p90": self.adaptive.p90,
            f"{name}_adaptive_decisions_per_s": 1e3 * self.batch / self.adaptive.mean,
            f"{name}_adaptive_steps": self.steps,
            f"{name}_peak_share": self.peak_share,
            f"{name}_memory_gib": self.memory_gib,
        }
        return {key: value for key, value in numbers.items() if not math.isnan(value)}


def peak_flops(device: str, given_tflops: float) -> float:
    """Operations a second that the device can do at most in bfloat16; NaN on a CPU.

    Raises:
        InputError: a GPU that isn't listed, and no number given.
    """
    if given_tflops > 0:
        return 1e12 * given_tflops
    if device != "cuda":
        return math.nan
    name = torch.cuda.get_device_name(0)
    for known, tflops in PEAK_TFLOPS.items():
        if known in name:
            return 1e12 * tflops
    raise InputError(f"the peak of {name!r} is not listed: give --peak-tflops, dense bfloat16")


def decision_flops(config: PolicyConfig, keep: float) -> float:
    """Of the model under the policy, one decision; NaN for the small presets, whose operations are not counted."""
    if not isinstance(config.backbone, OpenVlaConfig):
        return math.nan
    kept = max(math.ceil(keep * config.backbone.visual_tokens), config.attention.sink_tokens)
    parts = decision_cost(config.backbone, text_tokens=PROMPT_TOKENS, visual_tokens=kept)
    return float(sum(part.flops for part in parts))


def measure_batches(
    policy: AvaVlaPolicy,
    batches: Sequence[int],
    keeps: Sequence[float],
    device: str,
    seconds: float,
    now: Callable[[], float],
    *,
    depth: int,
    peak: float,
) -> list[BatchRow]:
    """Rows of every batch size and keep ratio; `seconds` are shared out among the batch sizes, three rounds at least.

    Args:
        depth: of the fixed case. peak: operations a second.
    """
    rows = []
    threshold = policy.config.latent.exit_threshold
    for batch in batches:
        queries = decider(policy, batch, device, queries=max(2, 8 // batch))
        cases: dict[tuple[str, float], list[Callable[[], Any]]] = {}
        for keep in keeps:
            cases["fixed", keep] = [partial(query, depth=depth, keep_ratio=keep) for query in queries]
            cases["adaptive", keep] = [partial(query, exit_threshold=threshold, keep_ratio=keep) for query in queries]
        taken = time_in_turns(cases, seconds / len(batches), now)
        for keep in keeps:
            fixed, adaptive = taken["fixed", keep], taken["adaptive", keep]
            steps = statistics.fmean(float(step) for query in cases["adaptive", keep] for step in query())
            share = batch * decision_flops(policy.config, keep) / (1e-3 * fixed.mean) / peak
            memory = _peak_gib(cases["fixed", keep][0]) if device == "cuda" else math.nan
            rows.append(BatchRow(batch, keep, fixed, adaptive, steps, share, memory))
    return rows


def _peak_gib(query: Callable[[], Any]) -> float:
    torch.cuda.reset_peak_memory_stats()
    query()
    return torch.cuda.max_memory_allocated() / 2**30


def batch_table(rows: Sequence[BatchRow]) -> str:
    """Markdown, a line a row."""
    head = [
        "batch", "keep", "fixed ms", "P90 ms", "decisions/s", "adaptive ms", "P90 ms", "decisions/s", "steps",
        "share of peak", "GiB",
    ]  # fmt: skip
    lines = [
        [
            row.batch, row.keep, row.fixed.mean, row.fixed.p90, 1e3 * row.batch / row.fixed.mean,
            row.adaptive.mean, row.adaptive.p90, 1e3 * row.batch / row.adaptive.mean, row.steps,
            *("" if math.isnan(value) else value for value in (row.peak_share, row.memory_gib)),
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, lines)
