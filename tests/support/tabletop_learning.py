"""Decisions of the table-top's expert side by side, for policies that learn there (learning.py), and what these chose.

Letters: N demonstrations, T decisions, C chunk length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avavla_ray.demonstrations.writer import statistics_of
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.experts.expert import make_expert
from avavla_ray.simulators.tabletop.adapter import TabletopSimulator
from avavla_ray.simulators.tabletop.tasks import COLOURS
from avavla_ray.training.objective import to_tensors

Batch = dict[str, Tensor]


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


# Playing


def nearest_block(simulator: TabletopSimulator) -> str:
    """Colour of the one that the hand is nearest to, seen from above."""
    hand = simulator.world.gripper[:2]
    return min(COLOURS, key=lambda colour: float(np.linalg.norm(hand - simulator.world.block(colour)[:2])))
