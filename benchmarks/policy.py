#!/usr/bin/env python
"""How long a decision takes: over latent depths, with early exit, with pruned visual tokens; and a training step.

Cases are timed in turns, so that whatever else the machine does falls on all of them alike; medians are reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avavla_ray.command_line import run_job
from avavla_ray.files import write_json


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        quick: fewer repetitions; ends within 45 s on 2 cores.
        json: file for the numbers.
        preset: policy to build; its exit gate gets random weights, so that samples differ in when they leave.
        checkpoint: measure this one and its own gate instead.
        threads: processor threads of PyTorch.
    """

    quick: bool = False
    json: Path | None = None
    preset: str = "small"
    checkpoint: Path | None = None
    threads: int = 1
    seed: int = 0


def time_in_turns(cases: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each case; the cases take turns until `seconds` are over, three rounds at least."""
    for case in cases.values():
        case()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[next(iter(cases))]) < 3:
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def make_policy(settings: Settings) -> Any:
    """The policy to measure."""
    import torch

    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.policy import AvaVlaPolicy

    if settings.checkpoint is not None:
        return load_checkpoint(settings.checkpoint).policy
    policy = AvaVlaPolicy(preset(settings.preset)).eval()
    with torch.no_grad():
        for module in (policy.loop.exit_gate, policy.loop.update_policy.mean):
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return policy


def make_inputs(config: Any, batch: int) -> Any:
    """Noise observations with a 10-word instruction, the length of libero_object's."""
    import torch

    from avavla_ray.policy.types import PolicyInputs

    size = config.backbone.image_size
    text = torch.zeros(batch, config.backbone.max_text_tokens, dtype=torch.int64)
    text[:, :10] = torch.randint(1, 100, (10,))
    images = torch.randint(0, 256, (batch, config.backbone.num_cameras, size, size, 3), dtype=torch.uint8)
    return PolicyInputs(images, text, torch.randn(batch, config.proprio_dim))


def measure_exit(policy: Any, batch: int, seconds: float) -> dict[str, float]:
    """Adaptive depth against the fixed depths around its mean, the same observations for all of them."""
    K = policy.config.latent.max_steps
    pool = 8 if batch == 1 else 4
    inputs = [make_inputs(policy.config, batch) for _ in range(pool)]
    beliefs = [policy.decide(each, policy.initial_belief(batch)).belief for each in inputs]

    def decide(**options: Any) -> list[Any]:
        return [policy.decide(each, belief, **options) for each, belief in zip(inputs, beliefs, strict=True)]

    scores = sorted(float(s) for decision in decide(depth=K) for s in decision.trace.exit_score.flatten())
    threshold = scores[len(scores) // 2]
    steps = [int(s) for decision in decide(exit_threshold=threshold) for s in decision.trace.steps]
    cases: dict[str, Callable[[], Any]] = {f"depth {k}": partial(decide, depth=k) for k in range(K + 1)}
    cases["adaptive"] = partial(decide, exit_threshold=threshold)
    taken = {name: value / pool for name, value in time_in_turns(cases, seconds).items()}
    mean = sum(steps) / len(steps)
    below = min(int(mean), K - 1)
    at_mean = taken[f"depth {below}"] + (mean - below) * (taken[f"depth {below + 1}"] - taken[f"depth {below}"])
    return {
        "ratio": taken["adaptive"] / at_mean,
        "mean_depth": mean,
        "adaptive_ms": taken["adaptive"],
        "fixed_full_ms": taken[f"depth {K}"],
        "fixed_zero_ms": taken["depth 0"],
    }


def measure_pruning(policy: Any, batch: int, keep: float, seconds: float) -> dict[str, float]:
    """The transformer, and the whole decision, with all visual tokens and with a share of them."""
    import torch

    inputs, belief = make_inputs(policy.config, batch), policy.initial_belief(batch)
    seen: list[tuple[Any, Any]] = []
    hook = policy.backbone.transformer.register_forward_pre_hook(
        lambda module, given, options: seen.append((given, options)), with_kwargs=True
    )
    for ratio in (1.0, keep):
        policy.decide(inputs, belief, keep_ratio=ratio)
    hook.remove()
    sequences = {1.0: seen[0], keep: seen[1]}

    def transform(ratio: float) -> None:
        given, options = sequences[ratio]
        with torch.no_grad():
            policy.backbone.transformer(*given, **options)

    taken = time_in_turns(
        {
            "whole": lambda: transform(1.0),
            "pruned": lambda: transform(keep),
            "act whole": lambda: policy.decide(inputs, belief, keep_ratio=1.0),
            "act pruned": lambda: policy.decide(inputs, belief, keep_ratio=keep),
        },
        seconds,
    )
    return {
        "speedup": taken["whole"] / taken["pruned"],
        "act_speedup": taken["act whole"] / taken["act pruned"],
        "act_ms": taken["act whole"],
    }


def measure_training(policy: Any, streams: int, window: int, latent_steps: int, seconds: float) -> float:
    """Milliseconds of a behaviour-cloning step over `streams` x `window` decisions, optimizer included."""
    import torch

    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    inputs = [make_inputs(policy.config, streams) for _ in range(window)]

    def step() -> None:
        belief, loss = policy.initial_belief(streams), torch.zeros(())
        for each in inputs:
            chunk, belief, _ = policy.clone(each, belief, latent_steps=latent_steps)
            loss = loss + chunk.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return time_in_turns({"step": step}, seconds)["step"]


def main(settings: Settings) -> None:
    import torch

    from avavla_ray.errors import InputError
    from avavla_ray.provenance import machine

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    policy = make_policy(settings)
    if policy.config.attention.enabled is False or policy.config.latent.enabled is False:
        raise InputError("this benchmark measures early exit and pruning: give a policy that has both")
    share = 1.0 if settings.quick else 6.0
    single = measure_exit(policy, 1, 7 * share)
    batched = measure_exit(policy, 4, 7 * share)
    pruning = measure_pruning(policy, 4, 0.3, 4 * share)
    full = batched["fixed_full_ms"]
    result = {
        "adaptive_over_fixed": single["ratio"],
        "pruning_speedup": pruning["speedup"],
        "decisions_per_s": 4e3 / full,
        "adaptive_over_fixed_batch_4": batched["ratio"],
        "mean_depth": single["mean_depth"],
        "mean_depth_batch_4": batched["mean_depth"],
        "act_ms_batch_1_full_depth": single["fixed_full_ms"],
        "act_ms_batch_1_adaptive": single["adaptive_ms"],
        "act_ms_batch_4_full_depth": full,
        "act_ms_batch_4_depth_0": batched["fixed_zero_ms"],
        "pruning_act_speedup": pruning["act_speedup"],
        "training_step_ms_32_decisions": measure_training(policy, 8, 4, 0, 3 * share),
        "warm_up_step_ms_32_decisions": measure_training(policy, 8, 4, policy.config.latent.max_steps, 3 * share),
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "visual_tokens": policy.config.backbone.visual_tokens,
        "threads": settings.threads,
        "preset": policy.config.preset,
        "machine": machine(),
    }
    for name, value in result.items():
        print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")
    if settings.json is not None:
        write_json(settings.json, result)


if __name__ == "__main__":
    run_job(main, Settings)
