"""Between a simulator's units and the arrays that a policy is given, without the policy itself.

Letters: B batch, V cameras, S image size, L text tokens, P proprioception, C chunk, A action dimension.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from avavla_ray.dimensions import closing_command
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.preparation import Preparation
from avavla_ray.policy.units import check_widths
from avavla_ray.simulators.base import Observation


class InputArrays(NamedTuple):
    """`PolicyInputs` as arrays: images (B, V, S, S, 3) uint8, text (B, L) int64, proprio (B, P) float32, normalised."""

    images: np.ndarray
    text: np.ndarray
    proprio: np.ndarray


class Translation:
    """Units of the data that a policy was trained on, for whoever has no policy at hand.

    Raises:
        InputError: the statistics are of another robot.
    """

    def __init__(self, config: PolicyConfig, statistics: Statistics) -> None:
        check_widths(config, statistics)
        self.config, self.statistics = config, statistics

    @cached_property
    def _preparation(self) -> Preparation:
        return Preparation(self.config)

    def inputs(self, observations: list[Observation]) -> InputArrays:
        """A batch of B observations. A policy of one camera sees the simulator's first.

        Raises:
            InputError: an observation that the policy can't take, or the policy has no tokenizer.
        """
        preparation, cameras = self._preparation, self.config.backbone.num_cameras
        return InputArrays(
            np.stack([preparation.images(list(observation.images[:cameras])) for observation in observations]),
            np.stack([preparation.text(observation.instruction).numpy() for observation in observations]),
            preparation.proprio(np.stack([observation.proprio for observation in observations]), self.statistics),
        )

    def actions(self, chunk: np.ndarray) -> np.ndarray:
        """Normalised chunk (B, C, A) -> (B, C, A) float32 in the environment's convention.

        The last dimension is the gripper: it becomes the simulator's command, -1 or +1. The others are clipped to
        [-1, 1].
        """
        actions = self.statistics.action.unnormalise(chunk)
        up = actions[..., -1] >= 0
        if self.config.gripper == "open_fraction":
            up = (actions[..., -1] < 0.5) == (closing_command(self.statistics.name) > 0)
        actions = np.clip(actions, -1.0, 1.0)
        actions[..., -1] = np.where(up, 1.0, -1.0)
        return actions
