"""A robot's call: pictures, words and joints in, actions in the data's units out, several robots in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, Decision, PolicyInputs, stack_beliefs
from avavla_ray.policy.units import pick_statistics

# Far above any hidden state, and far below what float32 overflows at inside a network.
LARGEST_BELIEF = 1e6
_NO_NUMBERS = (
    "the policy computed actions that are no numbers: its weights are broken, or the belief is none that it returned"
)


class Request(NamedTuple):
    """What one robot asks. See `AvaVlaPolicy.act`."""

    images: Sequence[np.ndarray]
    instruction: str
    proprio: np.ndarray | None = None
    belief: Belief | None = None
    unnorm_key: str | None = None


class Prepared(NamedTuple):
    """A request that has been found good: images (V, S, S, 3) uint8, text (L,), proprio (P,) normalised, the belief
    (batch 1, on the CPU or the policy's device), and the statistics of its data set."""

    images: np.ndarray
    text: torch.Tensor
    proprio: np.ndarray
    belief: Belief
    statistics: Statistics


def prepare(policy: AvaVlaPolicy, request: Request) -> Prepared:
    """Check a request and bring it into the policy's terms; all on the CPU.

    Raises:
        InputError: names the field that is wrong, what was expected and what came.
    """
    preparation = policy.preparation
    statistics = pick_statistics(policy.config, policy.statistics, request.unnorm_key)
    proprio = preparation.proprio(request.proprio, statistics)
    if proprio.ndim != 1:
        raise InputError(f"proprio: expected {policy.config.proprio_dim} numbers, got shape {proprio.shape}")
    return Prepared(
        preparation.images(request.images), preparation.text(request.instruction), proprio,
        _belief(policy, request.belief), statistics,
    )  # fmt: skip


@torch.no_grad()
def decide_prepared(policy: AvaVlaPolicy, prepared: Sequence[Prepared], **options: Any) -> list[Decision | InputError]:
    """One forward pass for several robots; an error in place of a decision that came out as no numbers, which is
    that robot's affair alone.

    Args:
        options: of `AvaVlaPolicy.decide`.
    """
    start = time.perf_counter()
    device = policy.device
    inputs = PolicyInputs(
        torch.from_numpy(np.stack([each.images for each in prepared])).to(device),
        torch.stack([each.text for each in prepared]).to(device),
        torch.from_numpy(np.stack([each.proprio for each in prepared])).to(device),
    )
    belief = stack_beliefs([Belief(*(part.to(device) for part in each.belief)) for each in prepared])
    batch = policy.decide(inputs, belief, **options)
    good = torch.stack([part.isfinite().flatten(1).all(1) for part in (batch.chunk, *batch.belief)]).all(0).tolist()
    chunks, scores = batch.chunk.cpu().numpy(), batch.trace.exit_score.float().cpu().numpy()
    steps = batch.trace.steps.tolist()
    milliseconds = 1e3 * (time.perf_counter() - start)
    return [
        Decision(
            each.statistics.action.unnormalise(chunks[row]),
            Belief(*(part[row : row + 1] for part in batch.belief)),
            steps[row], scores[row, : steps[row]], milliseconds,
        )
        if good[row] else InputError(_NO_NUMBERS)
        for row, each in enumerate(prepared)
    ]  # fmt: skip


def act_batch(policy: AvaVlaPolicy, requests: Sequence[Request], **options: Any) -> list[Decision]:
    """Decide for several robots at once; `milliseconds` of each is that of all.

    Raises:
        InputError: as `AvaVlaPolicy.act`.
    """
    start = time.perf_counter()
    decisions = decide_prepared(policy, [prepare(policy, request) for request in requests], **options)
    milliseconds = 1e3 * (time.perf_counter() - start)
    made = []
    for decision in decisions:
        if isinstance(decision, InputError):
            raise decision
        made.append(decision._replace(milliseconds=milliseconds))
    return made


def _belief(policy: AvaVlaPolicy, belief: Belief | None) -> Belief:
    initial = policy.initial_belief(1)
    if belief is None:
        return initial
    if not isinstance(belief, tuple) or len(belief) != len(initial):
        raise InputError(f"belief: expected what the previous decision returned, got {type(belief).__name__}")
    for field, given, wanted in zip(Belief._fields, belief, initial, strict=True):
        if not isinstance(given, torch.Tensor):
            raise InputError(f"belief.{field}: expected a tensor, got {type(given).__name__}")
        if given.shape != wanted.shape:
            raise InputError(
                f"belief.{field}: expected shape {tuple(wanted.shape)}, got {tuple(given.shape)}: "
                "hand on the one that this policy's previous decision returned"
            )
        if not given.is_floating_point():
            raise InputError(f"belief.{field}: expected float32, got {given.dtype}")
        if not bool(given.isfinite().all()):
            raise InputError(f"belief.{field}: expected finite numbers, got NaN or infinity: begin a new episode")
        if bool((given.abs() > LARGEST_BELIEF).any()):
            raise InputError(f"belief.{field}: expected what a policy returns, got numbers over {LARGEST_BELIEF:g}")
    return Belief(*(part.float() for part in belief))
