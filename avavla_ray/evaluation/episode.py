"""What one evaluated episode leaves behind. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class EpisodeRecord:
    """What one evaluated episode leaves in the ledger.

    Attributes:
        latent_steps, milliseconds: per decision.
        error: why the episode was aborted, else None; then it is neither failed nor a success.
        quarantined: aborted because its task killed one simulator after the other.
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


@dataclass
class Film:
    """Pictures of an episode with what the policy was thinking.

    Attributes:
        frames: (H, W, 3) uint8, one a environment step. steps, scores: of the decision that each frame belongs to.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
