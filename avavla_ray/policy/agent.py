"""Between a simulator's units and the policy's tensors: what an actor that decides holds."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from avavla_ray.normalisation import Statistics
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.tokenizer import WordTokenizer
from avavla_ray.policy.types import Belief, Decision, PolicyInputs
from avavla_ray.simulators.base import Observation


class Agent:
    """A policy with the statistics of the data that it was trained on."""

    def __init__(self, policy: AvaVlaPolicy, statistics: Statistics) -> None:
        self.policy = policy
        self.statistics = statistics
        config = policy.config
        self._tokenizer = WordTokenizer(config.vocabulary, config.backbone.max_text_tokens)
        self._encoded: dict[str, torch.Tensor] = {}

    @property
    def device(self) -> torch.device:
        return next(self.policy.parameters()).device

    def _text(self, instruction: str) -> torch.Tensor:
        if instruction not in self._encoded:
            self._encoded[instruction] = self._tokenizer.encode(instruction)
        return self._encoded[instruction]

    def inputs(self, observations: list[Observation]) -> PolicyInputs:
        """A batch of B observations, on the policy's device."""
        images = torch.from_numpy(np.stack([observation.images for observation in observations]))
        proprio = self.statistics.proprio.normalise(np.stack([o.proprio for o in observations]))
        text = torch.stack([self._text(observation.instruction) for observation in observations])
        return PolicyInputs(*(part.to(self.device) for part in (images, text, torch.from_numpy(proprio))))

    def actions(self, chunk: torch.Tensor) -> np.ndarray:
        """Normalised chunk (B, C, A) -> (B, C, A) float32 in the environment's convention.

        The last dimension is the gripper: it becomes -1 (open) or +1 (close). The others are clipped to [-1, 1].
        """
        actions = self.statistics.action.unnormalise(chunk.detach().float().cpu().numpy())
        actions = np.clip(actions, -1.0, 1.0)
        actions[..., -1] = np.where(actions[..., -1] >= 0, 1.0, -1.0)
        return actions

    def decide(
        self, observations: list[Observation], belief: Belief, **options: Any
    ) -> tuple[Decision, np.ndarray, float]:
        """Decide for B observations.

        Args:
            options: passed to `AvaVlaPolicy.act`.

        Returns:
            the decision, the actions (B, C, A) to execute, and the wall time of all of it in milliseconds.
        """
        start = time.perf_counter()
        decision = self.policy.act(self.inputs(observations), belief, **options)
        actions = self.actions(decision.chunk)
        return decision, actions, 1e3 * (time.perf_counter() - start)
