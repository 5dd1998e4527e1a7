"""Learning within minutes on one core: demonstrations, a small policy, cloning, and how it plays; in any suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avavla_ray.demonstrations.decisions import WindowSettings
from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.demonstrations.recording import record
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo
from avavla_ray.demonstrations.windows import WindowWalk
from avavla_ray.demonstrations.writer import DatasetWriter
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.experts.expert import Expert, make_expert
from avavla_ray.simulators.registry import make_simulator
from avavla_ray.training.objective import CloningObjective, to_tensors
from tests.support.policies import changed

Batch = dict[str, Tensor]

LOOK_AFTER = 3


def learner_config(**changes: object) -> PolicyConfig:
    """`tabletop` with one latent step, always taken."""
    return changed(preset("tabletop"), **{"latent__max_steps": 1, "latent__early_exit": False} | changes)


def learner_policy(config: PolicyConfig, seed: int) -> AvaVlaPolicy:
    """A fresh policy."""
    torch.manual_seed(seed)
    return AvaVlaPolicy(config).train()


def record_demonstrations(
    folder: Path, config: SimulatorConfig, tasks: Sequence[int], episodes: int, *, noise: float, speed: float = 1.0
) -> Statistics:
    """Write a data set of so many successes of an expert at every task, cautious at a lower speed."""
    simulator, writer, names = make_simulator(config), DatasetWriter(folder), []

    def expert(seed: int) -> Expert:
        return make_expert(simulator, seed=seed, noise=noise, speed=speed)

    for task in tasks:
        seed = 100_000
        while len(names) < episodes * (tasks.index(task) + 1):
            recording = record(simulator, expert, task=task, seed=seed)
            seed += 1
            if recording.success:
                names.append(f"{config.suite}-{task}-{seed}")
                info = EpisodeInfo(
                    names[-1], config.suite, task, seed, seed, len(recording.actions), 0, recording.instruction
                )  # fmt: skip
                writer.write(Episode(info, recording.images, recording.proprio, recording.actions))
    simulator.close()
    return writer.finish(config.suite, names, {"suite": config.suite, "image_size": config.image_size})


def walked(folder: Path, policy: AvaVlaPolicy, *, streams: int, seed: int = 0) -> Iterator[Batch]:
    """Single decisions of the episodes of a data set, side by side and one after the other."""
    walk = WindowWalk(
        open_mixture([folder]), lambda text: policy.preparation.text(text).numpy(),
        WindowSettings(streams=streams, chunk=policy.config.chunk, seed=seed), backbone=policy.config.backbone,
    )  # fmt: skip
    while True:
        yield to_tensors(walk.next())


def clone(
    policy: AvaVlaPolicy, batches: Iterator[Batch], steps: int, *, rate: float, latent_steps: int, seed: int = 0
) -> list[float]:
    """Behaviour cloning in this process; returns the L1 of every step."""
    objective, losses = CloningObjective(policy, smoothness=0.0), []
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.0)
    random, belief = torch.Generator().manual_seed(seed), None
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20, max(0.05, (steps - step) / (0.3 * steps)))
        batch = next(batches)
        rows, decisions = batch["mask"].shape[:2]
        noise = torch.randn(rows, decisions, max(1, latent_steps), policy.config.latent.update_dim, generator=random)
        belief = policy.initial_belief(rows) if belief is None else belief
        loss, belief, metrics = objective(batch, belief, latent_steps=latent_steps, noise=noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        losses.append(float(metrics["l1"]))
    policy.eval()
    return losses


@dataclass(frozen=True)
class Played:
    """An episode. chosen: what `look` saw."""

    task: int
    success: bool
    chosen: str


def play(
    policy: AvaVlaPolicy, statistics: Statistics, config: SimulatorConfig, starts: Sequence[tuple[int, int]], *,
    depth: int, forget: bool = False, simulators: int = 10, look: Callable[[Any], str] = lambda simulator: "",
) -> list[Played]:  # fmt: skip
    """Episodes from published states, (task, state) each, without any randomness.

    Args:
        forget: the belief is zero at every decision, and not at the first only.
        simulators: that play side by side.
        look: into the simulator after LOOK_AFTER decisions, or at the end of a shorter episode.
    """
    agent, played = Agent(policy.eval(), statistics), []
    table = [make_simulator(config) for _ in range(simulators)]
    for first in range(0, len(starts), simulators):
        running = list(zip(table, starts[first : first + simulators], strict=False))
        shown = [simulator.reset(task, initial_state=state) for simulator, (task, state) in running]
        belief, decisions = policy.initial_belief(len(running)), 0
        chosen = [""] * len(running)
        live = list(range(len(running)))
        while live:
            before = policy.initial_belief(len(live)) if forget else Belief(*(part[live] for part in belief))
            decision, actions, _ = agent.decide([shown[row] for row in live], before, depth=depth)
            decisions += 1
            for part, after in zip(belief, decision.belief, strict=True):
                part[live] = after
            for row, chunk in zip(list(live), actions, strict=True):
                simulator, (task, _) = running[row]
                result = simulator.run_chunk(chunk)
                shown[row] = result.observation
                if not chosen[row] and (decisions == LOOK_AFTER or result.done):
                    chosen[row] = look(simulator)
                if result.done:
                    played.append(Played(task, result.success, chosen[row]))
                    live.remove(row)
    for simulator in table:
        simulator.close()
    return played


def success_rate(played: Sequence[Played]) -> float:
    return float(np.mean([each.success for each in played]))
