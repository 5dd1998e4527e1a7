#!/usr/bin/env python
"""Training speed of behaviour cloning: Ray Train with DeepSpeed and Ray Data against a bare PyTorch loop, in turns in
one process; how fast the data come when nobody trains; two workers; on a GPU, a step of the 7B geometry with LoRA.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json

if TYPE_CHECKING:
    from avavla_ray.training.cloning_worker import CloningWork


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: shorter turns and one worker only; ends within 45 s on 2 cores.
        json: file for the numbers.
        preset: policy that both loops train. streams: decisions of a step, for each worker.
        zero_stage: by default what jobs take, 0 on one worker.
        data_cpus: that Ray Data may hold.
        seconds: of a turn of the training loop; 0: 6 with `quick`, else 20.
        gpu_preset: policy for the GPU, with LoRA of rank 32, bfloat16 and recomputed activations, where there is one.
        gpu_streams: decisions of its step.
        peak_tflops: dense bfloat16 of the GPU; 0 looks it up.
    """

    quick: bool = False
    json: Path | None = None
    preset: str = "small"
    streams: int = 16
    zero_stage: Literal[0, 1, 2, 3] | None = None
    data_cpus: float = 1.0
    seconds: float = 0.0
    gpu_preset: str = "openvla_oft_7b"
    gpu_streams: int = 16
    peak_tflops: float = 0.0


def main(settings: Settings) -> None:
    from actors.cluster import connect
    from avavla_ray.demonstrations.mixture import open_mixture
    from avavla_ray.policy.config import preset
    from avavla_ray.provenance import git_commit, machine
    from avavla_ray.training.cloning_worker import CloningWork
    from avavla_ray.training.settings import CloningSettings, Stage
    from benchmarks.cloning_cost.demos import write_demonstrations

    load_before = os.getloadavg()[0]
    # Slots, not processors: the two workers and the data tasks have to fit, wherever this runs.
    connect(address=os.environ.get("RAY_ADDRESS", "local"), cpus=round(2 + settings.data_cpus + 0.5))
    with tempfile.TemporaryDirectory(prefix="bench-bc-") as temporary:
        folder = Path(temporary)
        write_demonstrations(folder / "demos")
        cloning = CloningSettings(
            minutes=60, streams=settings.streams, workers=1, stages=(Stage("cloning"),), held_out=0.0,
            zero_stage=settings.zero_stage, data_cpus=settings.data_cpus,
        )  # fmt: skip
        work = CloningWork(cloning, preset(settings.preset), open_mixture([folder / "demos"]), folder, "", {})
        numbers = measure_loops(work, settings)
        if settings.quick:
            print("two workers: left out with --quick")
        else:
            numbers |= measure_scaling(work, settings)
        numbers |= measure_gpu(folder, settings)
    numbers |= {
        "streams": settings.streams,
        "zero_stage": cloning.sharding(1),
        "preset": settings.preset,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "machine": machine(),
        "commit": git_commit(),
    }
    numbers = {name: value for name, value in numbers.items() if value == value}  # not NaN
    for name, value in numbers.items():
        print(f"{name:>40} {value:.4g}" if isinstance(value, float) else f"{name:>40} {value}")
    if settings.json is not None:
        write_json(settings.json, numbers)


def measure_loops(work: CloningWork, settings: Settings) -> dict[str, Any]:
    """The training loop against the bare one, and the data alone, on one worker."""
    from benchmarks.cloning_cost.workers import Plan, compare, fit

    rounds, pipeline_s = (1, 1.0) if settings.quick else (4, 10.0)
    found = fit(compare, Plan(work, rounds, _seconds(settings), pipeline_s), work.settings, work.output)
    return summary(found["ours"], found["bare"], settings.streams) | found["pipeline"]


def summary(ours: list[dict[str, float]], bares: list[dict[str, float]], streams: int) -> dict[str, Any]:
    """What the turns come to; each of ours is compared with the bare ones before and after it."""
    ratios, undisturbed, cpu_ratios = [], [], []
    for turn, before, after in zip(ours, bares[:-1], bares[1:], strict=True):
        ratios.append(2 * _rate(turn) / (_rate(before) + _rate(after)))
        undisturbed.append((_alone(before) + _alone(after)) / (2 * _alone(turn)))
        cpu_ratios.append((_cpu(before) + _cpu(after)) / (2 * _cpu(turn)))
    rates = [_rate(turn) for turn in bares]
    own = statistics.fmean(turn["main_cpu_s"] / turn["steps"] for turn in ours)
    return {
        "ratio_to_bare_loop": statistics.fmean(ratios),
        "ratio_to_bare_loop_worst_turn": min(ratios),
        "ratio_undisturbed": statistics.fmean(undisturbed),
        "cpu_ratio_to_bare_loop": statistics.fmean(cpu_ratios),
        "cpu_ratio_own_thread": statistics.fmean(map(_cpu, bares)) / own,
        "data_wait_share": sum(turn["waited"] * turn["wall_s"] for turn in ours) / sum(turn["wall_s"] for turn in ours),
        "decisions_per_s": streams * statistics.fmean(map(_rate, ours)),
        "bare_decisions_per_s": streams * statistics.fmean(rates),
        "bare_spread": max(rates) / min(rates),
        "cpu_ms_per_step": 1e3 * statistics.fmean(map(_cpu, ours)),
        "cpu_ms_per_step_own_thread": 1e3 * own,
        "bare_cpu_ms_per_step": 1e3 * statistics.fmean(map(_cpu, bares)),
        "steps": sum(turn["steps"] for turn in ours),
    }


def measure_scaling(work: CloningWork, settings: Settings) -> dict[str, Any]:
    """Two workers with as many streams each as one had, between two measurements of one."""
    from benchmarks.cloning_cost.workers import Plan, fit, train_only

    def run(workers: int) -> float:
        cloning = dataclasses.replace(work.settings, workers=workers, streams=workers * settings.streams)
        plan = Plan(dataclasses.replace(work, settings=cloning), rounds=1, seconds=_seconds(settings))
        return cloning.streams * _rate(fit(train_only, plan, cloning, work.output)["ours"][0])

    before, two, after = run(1), run(2), run(1)
    return {
        "decisions_per_s_2_workers": two,
        "scaling_1_to_2": 2 * two / (before + after),
        "scaling_drift": after / before,
        "processors": len(os.sched_getaffinity(0)),
    }


def measure_gpu(folder: Path, settings: Settings) -> dict[str, Any]:
    """A step of the 7B geometry; nothing where the cluster has no GPU."""
    import ray

    if not ray.cluster_resources().get("GPU"):
        print(f"{settings.gpu_preset} with LoRA: left out, this cluster has no GPU")
        return {}
    from benchmarks.cloning_cost.accelerator import GpuPlan, lora_settings, measure_steps
    from benchmarks.cloning_cost.workers import fit

    cloning = lora_settings(settings.gpu_streams)
    plan = GpuPlan(settings.gpu_preset, cloning, folder, _seconds(settings), settings.peak_tflops)
    return fit(measure_steps, plan, cloning, folder, gpus=1.0)


def _seconds(settings: Settings) -> float:
    return settings.seconds or (6.0 if settings.quick else 20.0)


def _rate(turn: dict[str, float]) -> float:
    """Steps a second."""
    return turn["steps"] / turn["wall_s"]


def _alone(turn: dict[str, float]) -> float:
    """Seconds a step, without those in which the loop could have run and other threads had the processors."""
    return (turn["wall_s"] - turn["queued_s"]) / turn["steps"]


def _cpu(turn: dict[str, float]) -> float:
    """Processor seconds a step."""
    return turn["cpu_s"] / turn["steps"]


if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder only.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    run_job(main, Settings)
