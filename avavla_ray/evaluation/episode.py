"""What one evaluated episode leaves behind. Imports without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from avavla_ray.errors import InputError


@dataclass
class EpisodeRecord:
    """What one evaluated episode leaves in the ledger.

    Attributes:
        latent_steps, milliseconds: per decision.
        error: why the episode was aborted, else None; then it is neither failed nor a success.
        quarantined: aborted because its task killed one simulator after the other.
        scores: per decision, what the exit gate said after each latent step taken; four digits (`round_scores`). Empty
            in ledgers of versions that did not keep them.
    """

    setting: str
    task: int
    initial_state: int
    success: bool
    steps: int
    latent_steps: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    error: str | None = None
    quarantined: bool = False
    scores: list[list[float]] = field(default_factory=list)


def round_scores(scores: Sequence[float]) -> list[float]:
    """A decision's gate scores as a record keeps them."""
    return [round(float(score), 4) for score in scores]


@dataclass
class Film:
    """Pictures of an episode with what the policy was thinking; fill it with `add`.

    Attributes:
        crop: share of the area at the centre of each picture that the policy sees.
        threshold: that the gate's scores had to exceed: a number, or one for each latent step but the last; None at a
            fixed depth.
        frames: (H, W, 3) uint8 of the scene camera, one an environment step. All others belong to the decision that the
            frame follows from, one entry a frame:
        steps: latent steps taken. scores: what the exit gate said after each of them.
        weights: (N,) float32, the AVA weights of the visual tokens of all cameras, camera by camera in row-major order;
            None without AVA. views: (V, H, W, 3) uint8, what the cameras showed when it was decided; None if not kept.
    """

    crop: float = 1.0
    threshold: float | tuple[float, ...] | None = None
    frames: list[np.ndarray] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    weights: list[np.ndarray | None] = field(default_factory=list)
    views: list[np.ndarray | None] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """How many stand side by side: the scene as it moves, and what the other cameras showed."""
        views = self.views[0] if self.views else None
        return 1 if views is None else len(views)

    def add(
        self,
        frames: Sequence[np.ndarray],
        steps: int,
        scores: Sequence[float],
        weights: np.ndarray | None = None,
        views: np.ndarray | None = None,
    ) -> None:
        """Add the frames of one decision's chunk.

        Raises:
            InputError: scores of other steps than those that were taken.
        """
        if len(scores) != steps:
            raise InputError(f"{len(scores)} gate scores of {steps} latent steps: give one after each step taken")
        count = len(frames)
        self.frames += frames
        self.steps += [steps] * count
        self.scores += [round_scores(scores)] * count
        self.weights += [weights] * count
        self.views += [views] * count
