"""Stage 4 of arXiv 2606.15099 on the policy's own decisions: only the exit gate learns, from labels of the value head.

Letters: N decisions, K latent steps, Z latent width. The gate is asked after steps 1..K-1; nothing else is learned
from or counted here (after step K the loop ends, and the label would always be 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avavla_ray.errors import InputError, check_fraction, check_known
from avavla_ray.learning.exit_labels import exit_labels, value_gains
from avavla_ray.policy.checkpoint import policy_of
from avavla_ray.policy.gate_map import GateMap
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.training.gate_decisions import PlayedEpisode

TRAINING, VALIDATION, TEST = "training", "validation", "test"
ROLES = (TRAINING, VALIDATION, TEST)
_ROWS = 4096  # states that a network is asked about at once


@dataclass(frozen=True)
class GateSettings:
    """How the gate is calibrated; the paper's numbers, and what it leaves open as its other stages have it.

    Attributes:
        delta: smallest gain of value that is worth thinking on for. lookahead: steps that thinking on may take to it.
        steps: of AdamW. batch: decisions in each. learning_rate: at first; it falls to 0 as a cosine.
        keep: the gate of the "best" validation loss, or the "last" one.
        held_out: share of each task's episodes for validation, and as much again for the test.
        checks: how often the validation loss is looked at.
    """

    delta: float = 0.05
    lookahead: int = 3
    steps: int = 10_000
    batch: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    keep: str = "best"
    held_out: float = 0.15
    checks: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lookahead", "steps", "batch", "checks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too small: give at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise InputError(f"learning rate {self.learning_rate} is not positive: give a number above 0")
        if not math.isfinite(self.delta) or not self.weight_decay >= 0:
            raise InputError(f"delta {self.delta} and weight decay {self.weight_decay}: give finite ones, decay from 0")
        check_known("gate to keep", self.keep, ("best", "last"))
        check_fraction("held_out", self.held_out)
        if self.held_out >= 0.5:
            raise InputError(f"held_out {self.held_out}, twice, leaves nothing to learn from: give less than 0.5")


@dataclass(frozen=True)
class GateData:
    """Decisions of one role: states (N, K - 1, Z) after latent steps 1..K-1, labels and gains (N, K - 1) of them,
    values (N, K + 1) of z_0..z_K, success (N,) of the episode that each was taken in, episodes: how many."""

    states: Tensor
    labels: Tensor
    gains: Tensor
    values: Tensor
    success: Tensor
    episodes: int

    def __len__(self) -> int:
        return len(self.states)


def split_roles(tasks: Sequence[int], held_out: float, seed: int) -> list[str]:
    """Role of each episode: of every task the same share, drawn, and at least one for validation and test each where it
    has three or more; else all of it is for training.

    Args:
        tasks: of each episode.

    Raises:
        InputError: no episode is left for a role.
    """
    roles = [TRAINING] * len(tasks)
    for task in sorted(set(tasks)):
        mine = [index for index, each in enumerate(tasks) if each == task]
        if len(mine) < 3:
            continue
        count = min(max(1, round(held_out * len(mine))), (len(mine) - 1) // 2)
        order = np.random.default_rng([seed, task]).permutation(len(mine))
        for place in order[:count]:
            roles[mine[place]] = VALIDATION
        for place in order[count : 2 * count]:
            roles[mine[place]] = TEST
    if VALIDATION not in roles:
        raise InputError(f"{len(tasks)} episodes were played to the end, less than 3 of any task: give more --episodes")
    return roles


@torch.no_grad()
def gate_data(policy: AvaVlaPolicy, played: Sequence[PlayedEpisode], settings: GateSettings) -> dict[str, GateData]:
    """Label every decision by the value head, and give each episode its role."""
    roles = split_roles([each.start.task for each in played], settings.held_out, settings.seed)
    found = {}
    for role in ROLES:
        mine = [each for each, own in zip(played, roles, strict=True) if own == role]
        states = torch.from_numpy(np.concatenate([each.states for each in mine])).to(policy.device)
        values = torch.cat([policy.value(part) for part in states.split(_ROWS)])
        success = torch.tensor([each.success for each in mine for _ in each.states], device=policy.device)
        found[role] = GateData(
            states[:, 1:-1].contiguous(), exit_labels(values, settings.delta, settings.lookahead),
            value_gains(values, settings.lookahead), values, success, len(mine),
        )  # fmt: skip
    return found


@torch.no_grad()
def gate_logits(policy: AvaVlaPolicy, states: Tensor) -> Tensor:
    """The gate's logits (N, K - 1) of states (N, K - 1, Z) after latent steps 1..K-1, as deciding has them."""
    assert policy.loop is not None
    gate = policy.loop.exit_gate
    parts = [
        torch.cat([gate(part, step) for part in column.split(_ROWS)])
        for step, column in enumerate(states.unbind(1), start=1)
    ]
    return torch.stack(parts, dim=1)


def train_gate(
    policy: AvaVlaPolicy,
    data: dict[str, GateData],
    settings: GateSettings,
    told: Callable[[dict[str, float], int], None] = lambda numbers, step: None,
) -> tuple[list[dict[str, float]], int]:
    """Train the exit gate of `policy` in place; no other weight changes by a bit.

    Args:
        policy: without maps of its gate. data: of `gate_data`.
        told: called with the numbers of each check and its step.

    Returns:
        Those numbers, of the beginning too: "step", "training/loss" (mean since the check before), "validation/loss",
        "validation/accuracy" at the policy's exit threshold, "validation/mean_score", "learning_rate"; and the step of
        the gate that was kept.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    assert policy.loop is not None
    gate, training, validation = policy.loop.exit_gate, data[TRAINING], data[VALIDATION]
    random = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    rows = _batches(len(training), settings.batch, random)
    every = max(1, settings.steps // settings.checks)
    points = [{"step": 0.0, **_check(policy, validation), "learning_rate": settings.learning_rate}]
    best, kept, losses = _weights(gate), 0, list[Tensor]()
    best_loss = points[0]["validation/loss"]
    with torch.enable_grad():
        for step in range(1, settings.steps + 1):
            chosen = next(rows).to(policy.device)
            loss = F.binary_cross_entropy_with_logits(gate(training.states[chosen]), training.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            if step % every and step != settings.steps:
                continue
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise FloatingPointError(f"the gate's loss became {mean} at step {step}: lower --learning-rate")
            point = {
                "step": float(step), "training/loss": mean, **_check(policy, validation),
                "learning_rate": schedule.get_last_lr()[0],
            }  # fmt: skip
            losses = []
            points.append(point)
            told({name: value for name, value in point.items() if name != "step"}, step)
            if settings.keep == "last" or point["validation/loss"] < best_loss:
                best, kept, best_loss = _weights(gate), step, point["validation/loss"]
    gate.load_state_dict(best)
    return points, kept


def with_gate_maps(policy: AvaVlaPolicy, maps: tuple[GateMap, ...]) -> AvaVlaPolicy:
    """The same policy, its weights shared, with these maps of its gate's logits in place of any others."""
    latent = replace(policy.config.latent, gate_maps=maps)
    made = policy_of(replace(policy.config, latent=latent), policy.state_dict())
    made.statistics = policy.statistics
    return made.eval()


def _batches(count: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Rows of one batch after the other, every row once in each pass over them."""
    while True:
        order = torch.randperm(count, generator=random)
        yield from order.split(min(batch, count))


def _check(policy: AvaVlaPolicy, data: GateData) -> dict[str, float]:
    logits = gate_logits(policy, data.states)
    said = torch.sigmoid(logits) > policy.config.latent.exit_threshold
    return {
        "validation/loss": float(F.binary_cross_entropy_with_logits(logits, data.labels)),
        "validation/accuracy": float((said == data.labels.bool()).float().mean()),
        "validation/mean_score": float(torch.sigmoid(logits).mean()),
    }


def _weights(gate: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in gate.state_dict().items()}
