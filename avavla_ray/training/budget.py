"""Where training stands between its beginning and its end, and what follows from that: stage, rates, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from avavla_ray.training.settings import CloningSettings

CLONING, WARM_UP = "cloning", "latent_warm_up"


@dataclass
class Position:
    """How far training is; saved in checkpoints.

    Attributes:
        step: optimizer steps done. elapsed: seconds spent training, over all restarts.
        fraction: share of the budget used, 0 to 1. stage: "cloning", then "latent_warm_up".
    """

    step: int = 0
    elapsed: float = 0.0
    fraction: float = 0.0
    stage: str = CLONING


def used(settings: CloningSettings, step: int, elapsed: float) -> float:
    """Share of the budget used after `step` steps and `elapsed` seconds."""
    shares = [0.0]
    if settings.steps is not None:
        shares.append(step / settings.steps)
    if settings.minutes is not None:
        shares.append(elapsed / (60 * settings.minutes))
    return min(1.0, max(shares))


def stage_at(settings: CloningSettings, fraction: float, latent_loop: bool) -> tuple[str, float]:
    """Stage at a share of the budget, and the share of that stage that is done; a policy without a latent loop has
    no warm-up."""
    share = settings.latent_share if latent_loop else 0.0
    border = 1.0 - share
    if fraction < border or share == 0.0:
        return CLONING, min(1.0, fraction / border)
    return WARM_UP, (fraction - border) / share


def rate_factor(settings: CloningSettings, done: float) -> float:
    """Learning rate over its peak, at share `done` of a stage: linear rise, cosine fall to the floor."""
    if done < settings.rise:
        return max(done / settings.rise, 0.01)
    fallen = (done - settings.rise) / max(1e-9, 1 - settings.rise)
    return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


def passed(before: float, after: float, times: int) -> bool:
    """Whether one of `times` evenly spaced marks, the last of them the end, lies in (before, after]."""
    return (before < 1.0 <= after) or math.floor(after * times) > math.floor(before * times)
