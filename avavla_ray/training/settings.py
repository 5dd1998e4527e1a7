"""Settings of behaviour cloning and of the latent warm-up that follows it, and their named recipes. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avavla_ray.errors import InputError, check_fraction, check_known


@dataclass(frozen=True)
class CloningSettings:
    """Stages 1 and 2 of arXiv 2606.15099, on consecutive decisions as arXiv 2511.18960 trains.

    Attributes:
        steps: optimizer steps of both stages together; None leaves it to `minutes`.
        minutes: wall time of training, without start-up; None leaves it to `steps`. With both, the first one ends it.
        latent_share: share of training that is latent warm-up; 0 leaves it out.
        streams: decisions in a batch, over all workers. decisions: consecutive decisions a gradient step sums over.
        learning_rate, latent_learning_rate: peaks of the two stages; each rises over `rise` of its stage, then falls
            as a cosine to `floor` of the peak.
        smoothness: weight of mean((z_{k+1} - z_k)^2) in the warm-up.
        shift, brightness: image augmentation, see demonstrations/windows.py.
        proprio_noise: standard deviation of the noise on normalised proprioception, so that the policy looks.
        held_out: share of episodes kept for validation, at most `held_out_limit` of them.
        validations, checkpoints: how often over the whole run, evenly; the end always has one of each.
        keep: checkpoints kept for resuming.
        workers: training processes. threads: compute threads of each. zero_stage, gradient_clip, accumulation,
            precision: see engine.py. weight_decay: of AdamW.
        recompute: an OpenVLA backbone's activations in the backward pass, instead of keeping them.
        max_failures: worker crashes that the run survives.
    """

    steps: int | None = None
    minutes: float | None = None
    latent_share: float = 0.2
    streams: int = 32
    decisions: int = 1
    learning_rate: float = 1e-3
    latent_learning_rate: float = 1e-3
    rise: float = 0.04
    floor: float = 0.02
    smoothness: float = 1.0
    shift: int = 4
    brightness: float = 0.0
    proprio_noise: float = 0.0
    held_out: float = 0.1
    held_out_limit: int = 16
    validations: int = 8
    checkpoints: int = 4
    keep: int = 2
    workers: int = 2
    threads: int = 1
    zero_stage: int = 2
    gradient_clip: float = 1.0
    accumulation: int = 1
    precision: str = "float32"
    weight_decay: float = 0.0
    recompute: bool = False
    max_failures: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("training has no end: give a number of steps or of minutes")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise InputError(f"{self.steps} steps, {self.minutes} minutes: training needs more than none")
        for name in ("latent_share", "rise", "floor", "held_out"):
            check_fraction(name.replace("_", " "), getattr(self, name))
        for name in ("streams", "validations", "checkpoints", "keep", "workers", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too small: give at least 1")
        if self.streams % self.workers:
            raise InputError(f"{self.streams} streams do not divide among {self.workers} workers: give a multiple")


RECIPES: dict[str, dict[str, Any]] = {
    "default": {"steps": 20_000},
    # One task and some thirty demonstrations on two cores: where success lies clearly between 0 and 1. The steps make
    # the outcome the same on faster machines, the minutes end it on slower ones.
    "demo": {"steps": 1000, "minutes": 3.5, "streams": 16},
    # Seconds, for tests.
    "tiny": {"steps": 12, "streams": 4, "shift": 1, "validations": 2, "checkpoints": 3, "workers": 1},
}


def recipe(name: str, **changes: Any) -> CloningSettings:
    """The named recipe with some settings changed; None changes nothing.

    Raises:
        InputError: no such recipe, or settings that make no sense.
    """
    check_known("recipe", name, RECIPES)
    given = {key: value for key, value in changes.items() if value is not None}
    return CloningSettings(**{**RECIPES[name], **given})
