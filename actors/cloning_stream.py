"""Demonstrations for the behaviour-cloning loss beside PPO: windows of consecutive decisions with a real belief."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from actors.settings import PPOSettings
from avavla_ray.demonstrations.augmentation import SHIFTED
from avavla_ray.demonstrations.mixture import Mixture, split
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.demonstrations.windows import WindowSettings, WindowWalk
from avavla_ray.errors import InputError
from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.policy import AvaVlaPolicy
from avavla_ray.policy.types import Belief
from avavla_ray.training.objective import to_tensors


class Demonstrations(NamedTuple):
    """A data set to clone beside PPO.

    folder: or a URI. held_out: names of episodes not to learn from, by the name of their data set.
    """

    folder: str
    held_out: dict[str, list[str]]


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
    """This rank's streams through the demonstrations that are not held out.

    Raises:
        InputError: no such data set, one in other units than the policy's, or one that is held out as a whole.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        policy: AvaVlaPolicy,
        statistics: Statistics,
        settings: PPOSettings,
        *,
        rank: int,
        world: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        metadata = read_metadata(demonstrations.folder)
        check_units(demonstrations.folder, metadata.statistics, statistics)
        mixture = Mixture((metadata,))
        episodes, _ = split(mixture, 0.0, 0, seed, before=demonstrations.held_out)
        names = [metadata.episodes[index].episode for index in episodes[0]]
        self._folder, self._episodes = demonstrations.folder, hashlib.sha256("\n".join(names).encode()).hexdigest()
        config: PolicyConfig = policy.config
        preparation = policy.preparation
        windows = WindowSettings(
            streams=settings.demonstration_streams, decisions=settings.demonstration_decisions,
            chunk=config.chunk, seed=seed, augmentation=SHIFTED,
        )  # fmt: skip
        self._walk = WindowWalk(
            mixture, lambda text: preparation.text(text).numpy(), windows, episodes=episodes,
            rank=rank, world=world, backbone=config.backbone,
        )  # fmt: skip
        self._device, self._deepest = device, config.latent.max_steps if config.latent.enabled else 0
        # The same on every rank, so that all of them do the same amount of work.
        self._depths = np.random.default_rng([seed, 3])
        self.belief = policy.initial_belief(len(self._walk.mine), device)

    def next(self, weight: float) -> Demonstration:
        """The next window; hand its belief afterwards back by setting `belief`.

        Depths are drawn from 1 to K, where there is a loop: wherever the gate may stop, the action has to be good.
        """
        depth = int(self._depths.integers(min(1, self._deepest), self._deepest, endpoint=True))
        return Demonstration(to_tensors(self._walk.next(), self._device), self.belief, depth, weight)

    def state(self) -> dict[str, Any]:
        return {
            "episodes": self._episodes,
            "walk": self._walk.state(),
            "depths": self._depths.bit_generator.state,
            "belief": [part.cpu() for part in self.belief],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`.

        Raises:
            InputError: it walked over other episodes.
        """
        if state["episodes"] != self._episodes:
            raise InputError(
                f"{self._folder}: the episodes, or those of them that the start checkpoint holds out, are not what the "
                "run began with: put both back, or begin a new run"
            )
        self._walk.restore(state["walk"])
        self._depths.bit_generator.state = state["depths"]
        self.belief = Belief(*(part.to(self._device) for part in state["belief"]))


def never_learned(start: Mapping[str, Any], demonstrations: str | None) -> dict[str, list[str]]:
    """Names of the episodes, by data set, that a PPO run keeps from its policy as the training before it did.

    A data set that the run learns from whole is named with none: later runs must not take any of it for unseen.

    Args:
        start: `extra` of the checkpoint that the run starts from. demonstrations: folder or URI of what it clones.

    Raises:
        InputError: no such data set.
    """
    held_out = {name: list(episodes) for name, episodes in (start.get("held_out") or {}).items()}
    if demonstrations is not None:
        held_out.setdefault(read_metadata(demonstrations).name, [])
    return held_out


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
