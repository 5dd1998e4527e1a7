"""Where training stands between its beginning and its end, and what follows from that: stage, rates, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from avavla_ray.errors import InputError
from avavla_ray.training.settings import CLONING, CloningSettings
from avavla_ray.training.stages import runs


@dataclass
class Position:
    """How far training is; saved in checkpoints.

    Attributes:
        step: optimizer steps done. elapsed: seconds spent training, over all restarts.
        fraction: share of the budget used, 0 to 1. stage: index in the settings' stages.
    """

    step: int = 0
    elapsed: float = 0.0
    fraction: float = 0.0
    stage: int = 0


def used(settings: CloningSettings, step: int, elapsed: float) -> float:
    """Share of the budget used after `step` steps and `elapsed` seconds."""
    shares = [0.0]
    if settings.steps is not None:
        shares.append(step / settings.steps)
    if settings.minutes is not None:
        shares.append(elapsed / (60 * settings.minutes))
    return min(1.0, max(shares))


def stage_at(settings: CloningSettings, fraction: float, latent_loop: bool) -> tuple[int, float]:
    """Index of the stage at a share of the budget, and the share of that stage that is done.

    A policy without a latent loop skips the stages that move it, and the others have the whole budget.
    """
    borders = _borders(settings, latent_loop)
    for index, begin, end in borders:
        if fraction < end or index == borders[-1][0]:
            return index, min(1.0, (fraction - begin) / (end - begin))
    raise InputError("this policy has no latent loop, and every stage moves it: give a stage of cloning")


def next_stage(settings: CloningSettings, stage: int, latent_loop: bool) -> int | None:
    """Index of the stage that the policy goes through after `stage`; None after the last."""
    return next((index for index, _, _ in _borders(settings, latent_loop) if index > stage), None)


def cloned(settings: CloningSettings, fraction: float, latent_loop: bool) -> float:
    """Share of all cloning that is done at a share of the budget, which the temperature of the attention follows; 1
    where there is none."""
    spans = [
        (begin, end) for index, begin, end in _borders(settings, latent_loop) if settings.stages[index].kind == CLONING
    ]
    whole = sum(end - begin for begin, end in spans)
    return sum(min(max(fraction - begin, 0.0), end - begin) for begin, end in spans) / whole if whole else 1.0


def _borders(settings: CloningSettings, latent_loop: bool) -> list[tuple[int, float, float]]:
    """(index, begin, end) of the stages that a policy goes through, as shares of the budget."""
    going = [(index, stage.share) for index, stage in enumerate(settings.stages) if runs(stage.kind, latent_loop)]
    whole, before, borders = math.fsum(share for _, share in going), 0.0, []
    for index, share in going:
        after = before + share
        borders.append((index, before / whole, after / whole))
        before = after
    return borders


def rate_factor(settings: CloningSettings, done: float) -> float:
    """Learning rate over its peak, at share `done` of a stage: linear rise, cosine fall to the floor."""
    if done < settings.rise:
        return max(done / settings.rise, 0.01)
    fallen = (done - settings.rise) / max(1e-9, 1 - settings.rise)
    return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


def passed(before: float, after: float, times: int) -> bool:
    """Whether one of `times` evenly spaced marks, the last of them the end, lies in (before, after]."""
    return (before < 1.0 <= after) or math.floor(after * times) > math.floor(before * times)
