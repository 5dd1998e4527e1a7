"""What passes between the HTTP side and a policy: NumPy arrays, which Ray hands over without copying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from avavla_ray.normalisation import Statistics
from avavla_ray.policy.config import PolicyConfig


class BeliefArrays(NamedTuple):
    """A belief of batch size 1: hidden (1, M, D) float32, history (1, Z) float32."""

    hidden: np.ndarray
    history: np.ndarray


@dataclass(frozen=True)
class Ask:
    """One robot's observation, found good and brought into the policy's terms.

    Attributes:
        images: (V, S, S, 3) uint8. text: (L,) int64. proprio: (P,) float32, normalised.
        belief: None starts an episode.
        unnorm_key: the data set whose units the actions get.
    """

    images: np.ndarray
    text: np.ndarray
    proprio: np.ndarray
    belief: BeliefArrays | None
    unnorm_key: str


@dataclass(frozen=True)
class Answer:
    """One robot's decision.

    Attributes:
        actions: (C, A) float32 in the data's units.
        exit_scores: (steps,) float32, of the latent steps taken.
        milliseconds: of the forward pass, which the whole batch shares.
    """

    actions: np.ndarray
    belief: BeliefArrays
    latent_steps: int
    exit_scores: np.ndarray
    milliseconds: float


@dataclass(frozen=True)
class PolicyFacts:
    """What the HTTP side must know of the policy that it offers.

    Attributes:
        digest: SHA-256 of the checkpoint; equal digests act alike.
        statistics: of the data sets whose units the policy knows, by name.
        hidden, history: shapes of a belief of batch size 1.
        options: how it thinks: exit_threshold, depth, keep_ratio.
        attention: kernel of an OpenVLA's language model, None of a small one. compiled: the latent loop is.
    """

    digest: str
    config: PolicyConfig
    statistics: dict[str, Statistics]
    device: str
    precision: str
    hidden: tuple[int, ...]
    history: tuple[int, ...]
    options: dict[str, Any]
    attention: str | None
    compiled: bool
