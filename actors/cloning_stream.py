"""Demonstrations for the behaviour-cloning loss beside PPO: windows of consecutive decisions with a real belief."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.settings import PPOSettings
from avavla_ray.demonstrations.augmentation import Augmentation
from avavla_ray.demonstrations.mixture import Mixture
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.demonstrations.windows import WindowSettings, WindowWalk
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief
from avavla_ray.training.objective import to_tensors

SHIFT = 4  # pixels that the demonstrations' pictures are moved by at most


class Demonstration(NamedTuple):
    """One minibatch of demonstrations.

    window: see demonstrations/windows.py. belief: of each stream before it. latent_steps: depth to act at.
    weight: of the loss.
    """

    window: dict[str, Tensor]
    belief: Belief
    latent_steps: int
    weight: float


class CloningStream:
    """This rank's streams through the demonstrations in `folder`.

    Raises:
        InputError: no such data set, or one in other units than the policy's.
    """

    def __init__(
        self,
        folder: str | Path,
        policy: AvaVlaPolicy,
        statistics: Statistics,
        settings: PPOSettings,
        *,
        rank: int,
        world: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        metadata = read_metadata(folder)
        check_units(folder, metadata.statistics, statistics)
        config: PolicyConfig = policy.config
        preparation = policy.preparation
        windows = WindowSettings(
            streams=settings.demonstration_streams, decisions=settings.demonstration_decisions,
            chunk=config.chunk, augmentation=Augmentation(shift=SHIFT), seed=seed,
        )  # fmt: skip
        self._walk = WindowWalk(
            Mixture((metadata,)), lambda text: preparation.text(text).numpy(), windows,
            rank=rank, world=world, backbone=config.backbone,
        )  # fmt: skip
        self._device, self._deepest = device, config.latent.max_steps
        # The same on every rank, so that all of them do the same amount of work.
        self._depths = np.random.default_rng([seed, 3])
        self.belief = policy.initial_belief(len(self._walk.mine), device)

    def next(self, weight: float) -> Demonstration:
        """The next window; hand its belief afterwards back by setting `belief`.

        Depths are drawn from 1 to K: wherever the gate may stop, the action has to be good.
        """
        depth = int(self._depths.integers(1, self._deepest, endpoint=True))
        return Demonstration(to_tensors(self._walk.next(), self._device), self.belief, depth, weight)

    def state(self) -> dict[str, Any]:
        return {
            "walk": self._walk.state(),
            "depths": self._depths.bit_generator.state,
            "belief": [part.cpu() for part in self.belief],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._walk.restore(state["walk"])
        self._depths.bit_generator.state = state["depths"]
        self.belief = Belief(*(part.to(self._device) for part in state["belief"]))


def check_units(folder: str | Path, found: Statistics, wanted: Statistics) -> None:
    """Raise InputError when the demonstrations in `folder` are in other units than a policy that has `wanted`."""
    for kind in ("action", "proprio"):
        mine, theirs = getattr(wanted, kind), getattr(found, kind)
        same = mine.q01.shape == theirs.q01.shape and all(
            np.allclose(getattr(mine, bound), getattr(theirs, bound)) for bound in ("q01", "q99", "mask")
        )
        if not same:
            raise InputError(
                f"{folder}: {kind} is in other units than the policy's: give the demonstrations it was cloned from"
            )
