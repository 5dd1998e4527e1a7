"""What learns on the table-top within minutes on one core: demonstrations, a small policy, cloning, and how it plays.

Letters: N demonstrations, T decisions, C chunk length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avavla_ray.demonstrations.decisions import WindowSettings
from avavla_ray.demonstrations.mixture import open_mixture
from avavla_ray.demonstrations.recording import record
from avavla_ray.demonstrations.schema import Episode, EpisodeInfo
from avavla_ray.demonstrations.windows import WindowWalk
from avavla_ray.demonstrations.writer import DatasetWriter, statistics_of
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig, preset
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.experts.expert import Expert, make_expert
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.simulators.tabletop.tasks import COLOURS
from avavla_ray.training.objective import CloningObjective, to_tensors
from tests.support.policies import changed

Batch = dict[str, Tensor]

CHOSEN_AFTER = 3  # decisions, when the hand is over a block but has hardly reached any


def learner_config(**changes: object) -> PolicyConfig:
    """`tabletop` with one latent step, always taken."""
    return changed(preset("tabletop"), **{"latent__max_steps": 1, "latent__early_exit": False} | changes)


def learner_policy(config: PolicyConfig, seed: int) -> AvaVlaPolicy:
    """A fresh policy."""
    torch.manual_seed(seed)
    return AvaVlaPolicy(config).train()


# Demonstrations


def record_demonstrations(
    folder: Path, config: SimulatorConfig, tasks: Sequence[int], episodes: int, *, speed: float, noise: float
) -> Statistics:
    """Write a data set of so many successes of a cautious expert at every task."""
    simulator, writer, names = TabletopSimulator(config), DatasetWriter(folder), []

    def cautious(seed: int) -> Expert:
        return make_expert(simulator, seed=seed, noise=noise, speed=speed)

    for task in tasks:
        seed = 100_000
        while len(names) < episodes * (tasks.index(task) + 1):
            recording = record(simulator, cautious, task=task, seed=seed)
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


@dataclass(frozen=True)
class Windows:
    """The first T decisions of N demonstrations, made where a rollout makes them, as a batch of
    demonstrations/windows.py.

    Attributes:
        statistics: that proprioception and actions are normalised by.
    """

    batch: Batch
    statistics: Statistics

    def drawn(self, rows: int, decisions: int, *, proprio_noise: float, seed: int) -> Iterator[Batch]:
        """The first decisions of random demonstrations; noise on proprioception, lest it tells starts apart."""
        random = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randperm(len(self.batch["mask"]), generator=random)[:rows]
            batch = {name: part[chosen, :decisions] for name, part in self.batch.items()}
            noise = torch.randn(batch["proprio"].shape, generator=random)
            yield batch | {"proprio": batch["proprio"] + proprio_noise * noise}


def demonstrated_windows(
    config: SimulatorConfig, policy: PolicyConfig, starts: Sequence[int], decisions: int
) -> Windows:
    """The expert's successes at every task of the suite from the same starts, seeds.

    Only what a policy would be shown is rendered: the expert plays blind, and what it did is played again in chunks.
    """
    blind, seeing = TabletopSimulator(replace(config, render="none")), TabletopSimulator(config)
    seen, proprio, actions = [], [], []
    for seed in starts:
        for task in range(len(blind.spec.instructions)):
            felt, done, observation = [], [], blind.reset(task, seed=seed)
            expert = make_expert(blind, seed=seed)
            ended = False
            while not ended:
                felt.append(observation.proprio)
                done.append(expert.act())
                result = blind.run_chunk(done[-1][None])
                observation, ended = result.observation, result.done
            if not result.success:
                continue
            pictures, shown = [], seeing.reset(task, seed=seed)
            for step in range(0, min(len(done), decisions * policy.chunk), policy.chunk):
                pictures.append(shown.images)
                shown = seeing.run_chunk(np.stack(done[step : step + policy.chunk])).observation
            seen.append(pictures)
            proprio.append(np.stack(felt))
            actions.append(np.stack(done))
    text = shown.instruction
    blind.close()
    seeing.close()
    return _cut(seen, proprio, actions, text, config.suite, policy, decisions)


def _cut(
    seen: list[list[np.ndarray]], proprio: list[np.ndarray], actions: list[np.ndarray], text: str, name: str,
    policy: PolicyConfig, T: int,
) -> Windows:  # fmt: skip
    statistics = statistics_of(name, actions, proprio)
    N, C = len(seen), policy.chunk
    images = np.zeros((N, T, *seen[0][0].shape), np.uint8)
    felt = np.zeros((N, T, policy.proprio_dim), np.float32)
    done, mask = np.zeros((N, T, C, policy.action_dim), np.float32), np.zeros((N, T, C), bool)
    for row in range(N):
        normalised, where = statistics.action.normalise(actions[row]), statistics.proprio.normalise(proprio[row])
        for turn, picture in enumerate(seen[row]):
            coming = normalised[turn * C : (turn + 1) * C]
            images[row, turn], felt[row, turn] = picture, where[turn * C]
            done[row, turn, : len(coming)], mask[row, turn, : len(coming)] = coming, True
    starts = np.zeros((N, T), bool)
    starts[:, 0] = True
    batch = to_tensors({"images": images, "proprio": felt, "actions": done, "mask": mask, "starts": starts})
    words = AvaVlaPolicy(policy).preparation.text(text)
    return Windows(batch | {"text": words.expand(N, T, -1)}, statistics)


# Learning from them


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


# Playing


@dataclass(frozen=True)
class Played:
    """An episode. chosen: colour of the block that the hand was nearest to, seen from above, after three decisions."""

    task: int
    success: bool
    chosen: str


def play(
    policy: AvaVlaPolicy, statistics: Statistics, config: SimulatorConfig, starts: Sequence[tuple[int, int]], *,
    depth: int, forget: bool = False, simulators: int = 10,
) -> list[Played]:  # fmt: skip
    """Episodes from published states, (task, state) each, without any randomness.

    Args:
        forget: the belief is zero at every decision, and not at the first only.
    """
    agent, played = Agent(policy.eval(), statistics), []
    table = [TabletopSimulator(config) for _ in range(simulators)]
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
                if not chosen[row] and (decisions == CHOSEN_AFTER or result.done):
                    chosen[row] = _nearest(simulator)
                if result.done:
                    played.append(Played(task, result.success, chosen[row]))
                    live.remove(row)
    for simulator in table:
        simulator.close()
    return played


def _nearest(simulator: TabletopSimulator) -> str:
    hand = simulator.world.gripper[:2]
    return min(COLOURS, key=lambda colour: float(np.linalg.norm(hand - simulator.world.block(colour)[:2])))


def success_rate(played: Sequence[Played]) -> float:
    return float(np.mean([each.success for each in played]))
