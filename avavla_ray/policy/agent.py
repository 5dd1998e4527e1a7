"""Between a simulator's units and the policy's tensors: what an actor that decides holds."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.translation import Translation
from avavla_ray.policy.types import Belief, DecisionBatch, PolicyInputs
from avavla_ray.simulators.base import Observation


class Agent:
    """A policy with the statistics of the data that it was trained on.

    Raises:
        InputError: the statistics are of another robot.
    """

    def __init__(self, policy: AvaVlaPolicy, statistics: Statistics) -> None:
        self.policy = policy
        self.statistics = statistics
        self._translation = Translation(policy.config, statistics)

    @property
    def config(self) -> PolicyConfig:
        return self.policy.config

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def initial_belief(self) -> Belief:
        """What an episode starts with, of batch 1."""
        return self.policy.initial_belief(1, self.device)

    def inputs(self, observations: list[Observation]) -> PolicyInputs:
        """A batch of B observations, on the policy's device. A policy of one camera sees the simulator's first.

        Raises:
            InputError: an observation that the policy can't take.
        """
        return PolicyInputs(
            *(torch.from_numpy(part).to(self.device) for part in self._translation.inputs(observations))
        )

    def actions(self, chunk: torch.Tensor) -> np.ndarray:
        """Normalised chunk (B, C, A) -> (B, C, A) float32 in the environment's convention.

        The last dimension is the gripper: it becomes the simulator's command, -1 or +1. The others are clipped to
        [-1, 1].
        """
        return self._translation.actions(chunk.detach().float().cpu().numpy())

    def decide(
        self, observations: list[Observation], belief: Belief, **options: Any
    ) -> tuple[DecisionBatch, np.ndarray, float]:
        """Decide for B observations.

        Args:
            options: passed to `AvaVlaPolicy.decide`.

        Returns:
            the decision, the actions (B, C, A) to execute, and the wall time of all of it in milliseconds.
        """
        start = time.perf_counter()
        decision = self.policy.decide(self.inputs(observations), belief, **options)
        actions = self.actions(decision.chunk)
        return decision, actions, 1e3 * (time.perf_counter() - start)
