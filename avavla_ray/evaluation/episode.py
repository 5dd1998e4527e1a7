"""What an evaluation is made of: exit settings, and what one episode leaves behind. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from avavla_ray.errors import InputError, check_fraction
from avavla_ray.policy.config import PolicyConfig, check_depth


@dataclass(frozen=True)
class ExitSetting:
    """How long the policy may think: until the gate's score exceeds a threshold, or always to a fixed depth."""

    exit_threshold: float | None = None
    fixed_depth: int | None = None

    def __post_init__(self) -> None:
        if (self.exit_threshold is None) == (self.fixed_depth is None):
            raise InputError("an exit setting is either a threshold or a fixed depth")
        if self.exit_threshold is not None:
            check_fraction("exit threshold", self.exit_threshold)

    @property
    def label(self) -> str:
        """Short and unique; used in file names."""
        return f"depth_{self.fixed_depth}" if self.exit_threshold is None else f"threshold_{self.exit_threshold:.2f}"

    @property
    def title(self) -> str:
        return f"fixed depth {self.fixed_depth}" if self.exit_threshold is None else f"{self.exit_threshold:.2f}"


def exit_settings(
    thresholds: tuple[float, ...], depths: tuple[int, ...], policy: PolicyConfig
) -> tuple[ExitSetting, ...]:
    """The settings of an evaluation, checked against the policy; duplicates fold.

    Raises:
        InputError: a threshold outside [0, 1], a depth outside 0..K, or none of either; a threshold for a policy
            without a latent loop, which nothing can leave early.
    """
    if thresholds and not policy.latent.enabled:
        raise InputError(
            "exit thresholds: this policy has no latent loop to leave early: give --depths 0 and no threshold "
            "(jobs/evaluate.py --thresholds --depths 0; calvin_chains --depth 0)"
        )
    for depth in depths:
        check_depth(policy, depth)
    settings = [ExitSetting(exit_threshold=value) for value in thresholds]
    settings += [ExitSetting(fixed_depth=value) for value in depths]
    if not settings:
        raise InputError("no exit setting to evaluate: give --thresholds or --depths")
    labels = {setting.label: setting for setting in settings}
    if len(labels) < len({(s.exit_threshold, s.fixed_depth) for s in settings}):
        raise InputError("two thresholds differ by less than 0.01: they would share a result file")
    return tuple(labels.values())


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
