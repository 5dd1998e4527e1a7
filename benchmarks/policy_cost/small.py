"""What only the presets trained from scratch are measured for: pruning of their transformer, training steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from avavla_ray.policy.policy import AvaVlaPolicy
from benchmarks.policy_cost.subjects import make_inputs
from benchmarks.policy_cost.timing import time_in_turns


def measure_pruning(
    policy: AvaVlaPolicy, batch: int, keep: float, seconds: float, now: Callable[[], float], device: str
) -> dict[str, float]:
    """How many times as fast the transformer, and the whole decision, are with a share of the visual tokens."""
    inputs, belief = make_inputs(policy.config, batch, device), policy.initial_belief(batch, device)
    transformer: nn.Module = policy.backbone.transformer  # type: ignore[assignment]
    seen: list[tuple[Any, Any]] = []
    hook = transformer.register_forward_pre_hook(
        lambda module, given, options: seen.append((given, options)), with_kwargs=True
    )
    for ratio in (1.0, keep):
        policy.decide(inputs, belief, keep_ratio=ratio)
    hook.remove()

    def transform(given: tuple[Any, ...], options: dict[str, Any]) -> None:
        with torch.no_grad():
            transformer(*given, **options)

    cases: dict[str, list[Callable[[], Any]]] = {
        "whole": [partial(transform, *seen[0])],
        "pruned": [partial(transform, *seen[1])],
        "decision whole": [partial(policy.decide, inputs, belief, keep_ratio=1.0)],
        "decision pruned": [partial(policy.decide, inputs, belief, keep_ratio=keep)],
    }
    taken = time_in_turns(cases, seconds, now)
    return {
        "transformer": taken["whole"].mean / taken["pruned"].mean,
        "decision": taken["decision whole"].mean / taken["decision pruned"].mean,
    }


def measure_training(
    policy: AvaVlaPolicy,
    streams: int,
    window: int,
    latent_steps: int,
    seconds: float,
    now: Callable[[], float],
    device: str,
) -> float:
    """Milliseconds of a behaviour-cloning step over `streams` x `window` decisions, optimizer included."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    inputs = [make_inputs(policy.config, streams, device) for _ in range(window)]

    def step() -> None:
        belief, loss = policy.initial_belief(streams, device), torch.zeros((), device=device)
        for each in inputs:
            chunk, belief, _ = policy.clone(each, belief, latent_steps=latent_steps)
            loss = loss + chunk.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return time_in_turns({"step": [step]}, seconds, now)["step"].mean
