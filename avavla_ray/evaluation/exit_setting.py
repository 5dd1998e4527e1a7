"""How long a policy may think, as evaluations and sweeps name it. Imports without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError, check_fraction
from avavla_ray.files import write_json
from avavla_ray.policy.config import PolicyConfig, check_depth

Threshold = float | tuple[float, ...]
FORMAT = "avavla exit preset 1"


@dataclass(frozen=True)
class ExitSetting:
    """Until the gate's score exceeds a threshold, or always to a fixed depth.

    Attributes:
        exit_threshold: for all latent steps, or one for each of the steps 1 to K - 1. Multiples of 0.01, and held as
            such: what arithmetic adds to them (0.1 + 0.2) is rounded off.
        fixed_depth: latent steps; 0 acts at once.
        families: thresholds of the tasks of these families (`family`), in place of `exit_threshold`.

    Raises:
        InputError: both or none of the two, or a threshold that is no multiple of 0.01 in [0, 1].
    """

    exit_threshold: Threshold | None = None
    fixed_depth: int | None = None
    families: tuple[tuple[str, Threshold], ...] = ()

    def __post_init__(self) -> None:
        if (self.exit_threshold is None) == (self.fixed_depth is None):
            raise InputError("an exit setting is either a threshold or a fixed depth")
        if self.families and self.exit_threshold is None:
            raise InputError("thresholds of task families go with one for all other tasks, not with a fixed depth")
        if len(dict(self.families)) < len(self.families):
            raise InputError(f"task families {[name for name, _ in self.families]}: give each once")
        if self.exit_threshold is not None:
            object.__setattr__(self, "exit_threshold", _rounded(self.exit_threshold))
            object.__setattr__(self, "families", tuple((name, _rounded(own)) for name, own in self.families))

    @property
    def label(self) -> str:
        """Short and unique; used in file names."""
        if self.exit_threshold is None:
            return f"depth_{self.fixed_depth}"
        own = "".join(f"_{name}_{_text(threshold, '_')}" for name, threshold in self.families)
        return f"threshold_{_text(self.exit_threshold, '_')}{own}"

    @property
    def title(self) -> str:
        """For people."""
        if self.exit_threshold is None:
            return f"fixed depth {self.fixed_depth}"
        own = "".join(f", {name} {_text(threshold, '/')}" for name, threshold in self.families)
        return _text(self.exit_threshold, "/") + own

    def of(self, instruction: str) -> ExitSetting:
        """The setting of a task, without families."""
        if not self.families:
            return self
        return ExitSetting(exit_threshold=dict(self.families).get(family(instruction), self.exit_threshold))

    def decide_options(self) -> dict[str, Any]:
        """What `AvaVlaPolicy.decide` takes, of a setting without families."""
        if self.families:
            raise InputError(f"exit setting {self.title}: thresholds of families are of a task; take `of` it first")
        return {"depth": self.fixed_depth} if self.exit_threshold is None else {"exit_threshold": self.exit_threshold}

    def check(self, policy: PolicyConfig) -> None:
        """Refuse what this policy can't do.

        Raises:
            InputError: a depth outside 0..K; a threshold for a policy that nothing can leave early, or another number
                of them than it has such steps.
        """
        if self.fixed_depth is not None:
            check_depth(policy, self.fixed_depth)
            return
        if not policy.latent.enabled:
            raise InputError(
                "exit thresholds: this policy has no latent loop to leave early: give --depths 0 and no threshold "
                "(jobs/evaluate.py --thresholds --depths 0; calvin_chains --depth 0)"
            )
        asked = policy.latent.max_steps - 1
        for threshold in (self.exit_threshold, *(own for _, own in self.families)):
            if isinstance(threshold, tuple) and len(threshold) != asked:
                raise InputError(f"exit setting {self.title}: this policy asks its gate after {asked} latent steps")


def family(instruction: str) -> str:
    """Of a task: what its instruction says to do first ("pick", "open", "turn", ...)."""
    words = re.findall(r"[a-z]+", instruction.lower())
    return words[0] if words else "none"


def families(instructions: Iterable[str]) -> tuple[str, ...]:
    """Those of several tasks, in order of appearance."""
    return tuple(dict.fromkeys(map(family, instructions)))


def exit_settings(
    thresholds: Sequence[Threshold], depths: Sequence[int], policy: PolicyConfig
) -> tuple[ExitSetting, ...]:
    """The settings of an evaluation, checked against the policy; duplicates fold.

    Raises:
        InputError: see `ExitSetting` and its `check`; or none of either.
    """
    settings = [ExitSetting(exit_threshold=value) for value in thresholds]
    settings += [ExitSetting(fixed_depth=value) for value in depths]
    if not settings:
        raise InputError("no exit setting to evaluate: give --thresholds or --depths")
    for setting in settings:
        setting.check(policy)
    return tuple({setting.label: setting for setting in settings}.values())


def save_exit_preset(path: Path, setting: ExitSetting, **found: Any) -> None:
    """Write a setting for other jobs to take (--exit-preset).

    Args:
        found: how it was found, for people: checkpoint, suite, success rate, ...
    """
    write_json(
        path,
        {
            "format": FORMAT, "exit_threshold": setting.exit_threshold, "fixed_depth": setting.fixed_depth,
            "families": dict(setting.families), "found": found,
        },
    )  # fmt: skip


def load_exit_preset(path: Path, policy: PolicyConfig | None = None, *, families: bool = True) -> ExitSetting:
    """Read it back.

    Args:
        policy: that it has to fit. families: thresholds of task families can be used.

    Raises:
        InputError: the file does not exist or is something else, or it has what can't be used.
    """
    try:
        preset = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"exit preset {path} can't be read ({error}): give a file of jobs/sweep_exit.py") from error
    if not isinstance(preset, dict) or preset.get("format") != FORMAT:
        raise InputError(f"{path} is no exit preset: give a file of jobs/sweep_exit.py")
    try:
        own = tuple((name, _frozen(threshold)) for name, threshold in preset["families"].items())
        limit, depth = _frozen(preset["exit_threshold"]), preset["fixed_depth"]
    except (KeyError, AttributeError) as error:
        raise InputError(f"exit preset {path} is not whole ({error}): give a file of jobs/sweep_exit.py") from error
    if own and not families:
        raise InputError(f"{path} has thresholds of task families, which only jobs/evaluate.py tells apart")
    setting = ExitSetting(limit, depth, own)
    if policy is not None:
        setting.check(policy)
    return setting


def _each(threshold: Threshold) -> tuple[float, ...]:
    return threshold if isinstance(threshold, tuple) else (threshold,)


def _rounded(threshold: Threshold) -> Threshold:
    """As exact multiples of 0.01, which name results."""
    for value in _each(threshold):
        check_fraction("exit threshold", value)
        if abs(100 * value - round(100 * value)) > 1e-6:
            raise InputError(f"exit threshold {value}: give a multiple of 0.01, which names its results")
    values = tuple(round(float(value), 2) for value in _each(threshold))
    return values if isinstance(threshold, tuple) else values[0]


def _frozen(threshold: Any) -> Any:
    return tuple(threshold) if isinstance(threshold, list) else threshold


def _text(threshold: Threshold, between: str) -> str:
    return between.join(f"{value:.2f}" for value in _each(threshold))
