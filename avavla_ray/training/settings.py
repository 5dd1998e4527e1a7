"""Settings of learning from demonstrations, and their named recipes. Light to import."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from avavla_ray.demonstrations.augmentation import OPENVLA, SHIFTED, Augmentation
from avavla_ray.errors import InputError, check_fraction, check_known, quoted

CLONING, WARM_UP, CALIBRATION = "cloning", "latent_warm_up", "exit_calibration"
STAGES = (CLONING, WARM_UP, CALIBRATION)
OFFLOADS = ("none", "optimizer", "all")
EXIT_TARGETS = ("value", "imitation")


@dataclass(frozen=True)
class Stage:
    """A stretch of training in which some parts of the policy learn and the others are frozen (training/stages.py).

    Attributes:
        kind: "cloning", "latent_warm_up" or "exit_calibration": stages 1, 2 and 4 of arXiv 2606.15099.
        share: of the budget, over the sum of the shares of all stages.
        learning_rate: peak; it rises over `rise` of the stage, then falls as a cosine to `floor` of the peak.
    """

    kind: str
    share: float = 1.0
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_known("stage", self.kind, STAGES)
        for name, value in (("share", self.share), ("learning rate", self.learning_rate)):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"stage {self.kind}: {name} {value} is not positive: give a number above 0")


def parse_stages(*texts: str) -> tuple[Stage, ...]:
    """Stages as a command line names them, KIND[=SHARE][@RATE] each: "cloning=0.8@1e-3".

    Raises:
        InputError: names the text and the form.
    """
    stages = []
    for text in texts:
        rest, at, rate = text.partition("@")
        kind, equals, share = rest.partition("=")
        try:
            numbers = {
                **({"share": float(share)} if equals else {}),
                **({"learning_rate": float(rate)} if at else {}),
            }
        except ValueError:
            raise InputError(f"stage {quoted(text)} is not KIND[=SHARE][@RATE]: write cloning=0.8@1e-3") from None
        stages.append(Stage(kind, **numbers))
    return tuple(stages)


@dataclass(frozen=True)
class CloningSettings:
    """How a policy learns from demonstrations: stages 1, 2 and 4 of arXiv 2606.15099, on consecutive decisions as arXiv
    2511.18960 trains.

    Attributes:
        steps: optimizer steps of all stages together; None leaves it to `minutes`.
        minutes: wall time of training, without start-up; None leaves it to `steps`. With both, the first one ends it.
        stages: one after the other.
        streams: decisions of an optimizer step side by side, over all workers and all accumulated batches.
        decisions: consecutive decisions of each stream that a gradient step sums over.
        rise, floor: of the learning rate, see `Stage`.
        smoothness: weight of mean((z_{k+1} - z_k)^2) in the warm-up.
        augmentation: of the images. A random crop wants a policy that sees the centre crop of the same area.
        proprio_noise: standard deviation of the noise on normalised proprioception, so that the policy looks.
        held_out: share of episodes kept for validation, at most `held_out_limit` of them.
        validations, checkpoints: how often over the whole run, evenly; the end always has one of each.
        checkpoint_minutes: a checkpoint is never older than this while training goes on.
        keep: checkpoints kept for resuming, besides the best.
        workers: training processes. min_workers: with fewer machines the run goes on with as few as this; None wants
            all of them. threads: compute threads of each. data_cpus: CPUs that load data, for all workers together.
        zero_stage: see engine.py; None: as `sharding` chooses.
        offload, gradient_clip, accumulation, precision: see engine.py. weight_decay: of AdamW.
        average: decay of the exponential moving average of the weights, which is then validated and kept; 0 for none.
        recompute: an OpenVLA backbone's activations in the backward pass, instead of keeping them.
        gpus: of each worker; None: one where the cluster has any, which must be enough for `workers` (`min_workers`),
            else none.
        max_failures: worker crashes that the run survives.
        exit_target: what the exit gate is calibrated on, see exit_objective.py: "value", for weights whose value head
            has been trained by PPO, or "imitation", which needs demonstrations only.
        exit_delta: smallest gain of thinking on that is worth it, in units of the target; None takes its default.
        exit_lookahead: latent steps that thinking on may take to gain it.
    """

    steps: int | None = None
    minutes: float | None = None
    stages: tuple[Stage, ...] = (Stage(CLONING, 0.8), Stage(WARM_UP, 0.2))
    streams: int = 32
    decisions: int = 1
    rise: float = 0.04
    floor: float = 0.02
    smoothness: float = 1.0
    augmentation: Augmentation = SHIFTED
    proprio_noise: float = 0.0
    held_out: float = 0.1
    held_out_limit: int = 16
    validations: int = 8
    checkpoints: int = 4
    checkpoint_minutes: float = 10.0
    keep: int = 2
    workers: int = 2
    min_workers: int | None = None
    threads: int = 1
    data_cpus: float = 1.0
    gpus: float | None = None
    zero_stage: int | None = None
    offload: str = "none"
    gradient_clip: float = 1.0
    accumulation: int = 1
    precision: str = "float32"
    weight_decay: float = 0.0
    average: float = 0.0
    recompute: bool = False
    max_failures: int = 3
    exit_target: str = "imitation"
    exit_delta: float | None = None
    exit_lookahead: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("training has no end: give a number of steps or of minutes")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{each.name} {value} is no number to train with: give a finite one")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise InputError(f"{self.steps} steps, {self.minutes} minutes: training needs more than none")
        if not self.stages:
            raise InputError(f"training has no stages: give at least one of {', '.join(STAGES)}")
        for name in ("rise", "floor", "held_out"):
            check_fraction(name.replace("_", " "), getattr(self, name))
        for name in ("streams", "decisions", "validations", "checkpoints", "keep", "workers", "threads",
                     "accumulation", "exit_lookahead"):  # fmt: skip
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too small: give at least 1")
        for name in ("smoothness", "proprio_noise", "held_out_limit", "gradient_clip", "weight_decay", "max_failures",
                     "exit_delta", "gpus", "checkpoint_minutes", "seed"):  # fmt: skip
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} {getattr(self, name)} is negative: give 0 or more")
        if self.data_cpus <= 0:
            raise InputError(f"data_cpus {self.data_cpus}: somebody has to read the demonstrations, give more than 0")
        if self.held_out == 1:
            raise InputError("held_out 1 leaves nothing to learn from: give less")
        check_known("offload", self.offload, OFFLOADS)
        check_known("exit target", self.exit_target, EXIT_TARGETS)
        if not 0 <= self.average < 1:
            raise InputError(f"average {self.average} is not a decay: give 0 for none, or below 1, for instance 0.999")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise InputError(f"min_workers {self.min_workers} of {self.workers} workers: give 1 to {self.workers}")
        if self.streams < self.workers * self.accumulation:
            raise InputError(
                f"{self.streams} streams are too few for {self.workers} workers with {self.accumulation} batches each: "
                f"give at least {self.workers * self.accumulation}"
            )

    def sharding(self, world: int) -> int:
        """The ZeRO stage with `world` workers.

        A worker alone has nobody to share with: ZeRO 1 and 2 would copy its gradients and weights to and fro, and keep
        the weights twice.
        """
        if self.zero_stage is not None:
            return self.zero_stage
        if self.offload == "all":
            return 3
        return 0 if world == 1 and self.offload == "none" else 2


RECIPES: dict[str, dict[str, Any]] = {
    "default": {"steps": 20_000},
    # What the papers do with OpenVLA-OFT. PPO, which comes before their calibration, is another job.
    "paper": {
        "steps": 160_000, "streams": 64, "augmentation": OPENVLA,
        "stages": (Stage(CLONING, 100, 1e-4), Stage(WARM_UP, 50, 1e-4), Stage(CALIBRATION, 10, 1e-4)),
    },
    # Ten tasks of LIBERO by one `small` policy from fifty demonstrations a task: an hour on two cores (results/).
    "libero": {
        "steps": 10_000, "average": 0.999, "stages": (Stage(CLONING, 0.9), Stage(WARM_UP, 0.1)), "validations": 5,
    },
    # The same from one to five demonstrations a task, for PPO to go on from. Holding one out would leave out a task.
    "few": {
        "steps": 2000, "average": 0.999, "stages": (Stage(CLONING, 0.8), Stage(WARM_UP, 0.2)), "held_out": 0.0,
    },
    # One task and some thirty demonstrations on two cores: where success lies clearly between 0 and 1. The steps make
    # the outcome the same on faster machines, the minutes end it on slower ones.
    "demo": {"steps": 1000, "minutes": 3.5, "streams": 16},
    # A minute or two on the table-top with the preset of that name.
    "tabletop": {
        "steps": 800, "streams": 64, "stages": (Stage(CLONING, 0.85, 2.5e-3), Stage(WARM_UP, 0.15, 2.5e-3)),
        "validations": 2, "workers": 1,
    },
    # Seconds, for tests.
    "tiny": {
        "steps": 12, "streams": 4, "validations": 2, "checkpoints": 3, "workers": 1,
    },
}  # fmt: skip


def recipe(name: str | Path, **changes: Any) -> CloningSettings:
    """The named recipe, or the settings in a TOML file, with some settings changed; None changes nothing.

    Args:
        name: a key of `RECIPES`, or the path of a file that ends in .toml; see settings_file.py.

    Raises:
        InputError: no such recipe, a file that is not right, or settings that make no sense.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if str(name).endswith(".toml"):
        from avavla_ray.training.settings_file import read_settings

        return read_settings(Path(name), given)
    check_known("recipe", str(name), RECIPES)
    return CloningSettings(**{**RECIPES[str(name)], **given})
