#!/usr/bin/env python
"""What a decision takes: by latent depth and exit threshold, by batch size and visual tokens kept; and a training step.

Cases are timed in turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import write_json

if TYPE_CHECKING:
    from avavla_ray.policy.policy import AvaVlaPolicy

FULL_DEPTH = 5  # of the papers, at which the keys named "full_depth" are


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: fewer cases and repetitions; ends within 45 s on 2 cores.
        json: file for the numbers. markdown: file for the tables.
        preset: policy to build, with random weights; its exit gate is set so that samples differ in when they leave.
        checkpoint: measure this one and its own gate instead.
        device: cpu or cuda. precision: of the backbone.
        threads: processor threads of PyTorch.
        compile: also time fixed depths of the latent loop through torch.compile, which takes minutes to compile.
        peak_tflops: dense bfloat16 of the device, for the share of it that is reached; 0 looks it up.
    """

    quick: bool = False
    json: Path | None = None
    markdown: Path | None = None
    preset: str = "small"
    checkpoint: Path | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    compile: bool = False
    peak_tflops: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Numbers by key, and tables."""

    numbers: dict[str, Any]
    markdown: str


def measure_decisions(policy: AvaVlaPolicy, settings: Settings, now: Callable[[], float], share: float) -> Report:
    """Depths and thresholds, batches and keep ratios."""
    from avavla_ray.policy.config import PAPER_THRESHOLDS
    from benchmarks.policy_cost.batches import KEEPS, batch_table, measure_batches, peak_flops
    from benchmarks.policy_cost.depth import QUICK_DEPTHS, QUICK_THRESHOLDS, measure_depths, sweep_table
    from benchmarks.policy_cost.subjects import MAX_DEPTH, decider

    device, threshold = settings.device, policy.config.latent.exit_threshold
    peak = peak_flops(device, settings.peak_tflops)
    sweeps = {
        batch: measure_depths(
            decider(policy, batch, device, queries=4 if settings.quick else max(2, 16 // batch)),
            4 * share, now,
            depths=QUICK_DEPTHS if settings.quick else range(MAX_DEPTH + 1),
            thresholds=sorted({*(QUICK_THRESHOLDS if settings.quick else PAPER_THRESHOLDS), threshold}),
        )
        for batch in ((1, 4) if settings.quick else (1, 4, 32))
    }  # fmt: skip
    rows = measure_batches(
        policy, (1, 8) if settings.quick else (1, 2, 4, 8, 16, 32, 64), (1.0, 0.3) if settings.quick else KEEPS,
        device, 3 * share, now, depth=FULL_DEPTH, peak=peak,
    )  # fmt: skip
    one, four = sweeps[1], sweeps[4]
    numbers: dict[str, Any] = {
        "adaptive_over_fixed": one.adaptive_over_fixed(threshold),
        "adaptive_over_fixed_worst": one.worst_ratio(),
        "decisions_per_s": 4e3 / four.depths[FULL_DEPTH].mean,
        "mean_depth": one.steps[threshold],
        "act_ms_batch_1_full_depth": one.depths[FULL_DEPTH].mean,
        "act_ms_batch_1_adaptive": one.thresholds[threshold].mean,
        "act_ms_batch_4_full_depth": four.depths[FULL_DEPTH].mean,
        "act_ms_batch_4_depth_0": four.depths[0].mean,
    }
    for batch, sweep in sweeps.items():
        if batch > 1:
            numbers[f"adaptive_over_fixed_batch_{batch}"] = sweep.adaptive_over_fixed(threshold)
            numbers[f"mean_depth_batch_{batch}"] = sweep.steps[threshold]
        numbers |= sweep.flat(f"batch_{batch}.")
    for row in rows:
        numbers |= row.flat()
    return Report(numbers, f"{sweep_table(sweeps)}\n{batch_table(rows)}")


def measure_pruning_and_training(
    policy: AvaVlaPolicy, settings: Settings, now: Callable[[], float], share: float
) -> dict[str, float]:
    """Pruning with the 7B's layers; pruning and training of the policy itself where it is a small one."""
    from avavla_ray.policy.config import BackboneConfig
    from benchmarks.policy_cost.layers import prefill_speedup
    from benchmarks.policy_cost.small import measure_pruning, measure_training

    device = settings.device
    prefill = prefill_speedup(0.3, 2 * share, layers=1 if device == "cpu" else 8, device=device)
    numbers = {"pruning_speedup": prefill.pop("speedup")} | {f"prefill.{key}": value for key, value in prefill.items()}
    if isinstance(policy.config.backbone, BackboneConfig):
        pruning = measure_pruning(policy, 4, 0.3, 2 * share, now, device)
        numbers |= {
            "pruning_speedup_small": pruning["transformer"],
            "pruning_act_speedup": pruning["decision"],
            "training_step_ms_32_decisions": measure_training(policy, 8, 4, 0, 2 * share, now, device),
            "warm_up_step_ms_32_decisions": measure_training(policy, 8, 4, FULL_DEPTH, 2 * share, now, device),
        }
    return numbers


def main(settings: Settings) -> None:
    import torch

    from avavla_ray.provenance import git_commit, machine
    from benchmarks.policy_cost.latent import measure_latent
    from benchmarks.policy_cost.subjects import make_policy
    from benchmarks.policy_cost.timing import clock

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda': this machine or this PyTorch has no GPU: choose 'cpu'")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    policy = make_policy(settings.preset, settings.checkpoint, settings.device, settings.precision)
    if policy.attention is None or policy.loop is None:
        raise InputError("this benchmark measures early exit and pruning: give a policy that has both")
    now, share = clock(settings.device, settings.threads), 0.6 if settings.quick else 6.0
    decisions = measure_decisions(policy, settings, now, share)
    latent = measure_latent(settings.device, 2 * share, now, quick=settings.quick, compiled=settings.compile)
    result = decisions.numbers | latent.numbers | measure_pruning_and_training(policy, settings, now, share)
    result |= {
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "visual_tokens": policy.config.backbone.visual_tokens,
        "threads": settings.threads,
        "preset": policy.config.preset,
        "precision": settings.precision,
        "machine": machine(),
        "commit": git_commit(),
    }
    for name, value in result.items():
        print(f"{name:40} {value:.4g}" if isinstance(value, float) else f"{name:40} {value}")
    print(f"\n{decisions.markdown}\n{latent.markdown}")
    if settings.json is not None:
        write_json(settings.json, result)
    if settings.markdown is not None:
        settings.markdown.write_text(f"{decisions.markdown}\n{latent.markdown}", encoding="utf-8")


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
