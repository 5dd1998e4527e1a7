"""Between a simulator's units and the policy's tensors: what an actor that decides holds."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from avavla_ray.normalisation import Statistics
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief, DecisionBatch, PolicyInputs
from avavla_ray.policy.units import check_widths
from avavla_ray.simulators.base import Observation


class Agent:
    """A policy with the statistics of the data that it was trained on.

    Raises:
        InputError: the statistics are of another robot.
    """

    def __init__(self, policy: AvaVlaPolicy, statistics: Statistics) -> None:
        check_widths(policy.config, statistics)
        self.policy = policy
        self.statistics = statistics

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def inputs(self, observations: list[Observation]) -> PolicyInputs:
        """A batch of B observations, on the policy's device. A policy of one camera sees the simulator's first.

        Raises:
            InputError: an observation that the policy can't take.
        """
        preparation, cameras = self.policy.preparation, self.policy.config.backbone.num_cameras
        images = np.stack([preparation.images(list(observation.images[:cameras])) for observation in observations])
        proprio = preparation.proprio(np.stack([o.proprio for o in observations]), self.statistics)
        text = torch.stack([preparation.text(observation.instruction) for observation in observations])
        return PolicyInputs(
            *(part.to(self.device) for part in (torch.from_numpy(images), text, torch.from_numpy(proprio)))
        )

    def actions(self, chunk: torch.Tensor) -> np.ndarray:
        """Normalised chunk (B, C, A) -> (B, C, A) float32 in the environment's convention.

        The last dimension is the gripper: it becomes -1 (open) or +1 (close). The others are clipped to [-1, 1].
        """
        actions = self.statistics.action.unnormalise(chunk.detach().float().cpu().numpy())
        grip = actions[..., -1] >= 0 if self.policy.config.gripper == "signed" else actions[..., -1] < 0.5
        actions = np.clip(actions, -1.0, 1.0)
        actions[..., -1] = np.where(grip, 1.0, -1.0)
        return actions

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
