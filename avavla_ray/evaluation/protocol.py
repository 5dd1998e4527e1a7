"""One evaluated episode: the official loop, at one exit setting.

LIBERO's protocol: the benchmark's fixed initial states, settling steps, the suite's step limit, success by the task's
own check (avavla.md, "Evaluation protocols"). One episode is one batch of size 1, so that milliseconds are those of a
single robot.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from avavla_ray.errors import InputError, check_fraction
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig, check_depth
from avavla_ray.simulators.base import Simulator


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
        InputError: a threshold outside [0, 1], a depth outside 0..K, none given, or a policy without the part asked for.
    """
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
        latent_steps, milliseconds: per decision. error: why the simulator gave the episode up, else None.
    """

    setting: str
    task: int
    initial_state: int
    success: bool
    steps: int
    latent_steps: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Film:
    """Pictures of an episode with what the policy was thinking.

    Attributes:
        frames: (H, W, 3) uint8, one a environment step. steps, scores: of the decision that each frame belongs to.
    """

    frames: list[np.ndarray] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def play_episode(
    simulator: Simulator,
    agent: Agent,
    setting: ExitSetting,
    *,
    task: int,
    initial_state: int,
    film: Film | None = None,
) -> EpisodeRecord:
    """Play one episode with the mean latent updates (no sampling).

    Args:
        film: filled with the episode's pictures when given.
    """
    observation = simulator.reset(task, initial_state=initial_state, seed=initial_state)
    belief = agent.policy.initial_belief(1)
    record = EpisodeRecord(setting.label, task, initial_state, success=False, steps=0)
    done = False
    while not done:
        with torch.no_grad():
            decision, actions, milliseconds = agent.decide(
                [observation], belief, exit_threshold=setting.exit_threshold, depth=setting.fixed_depth
            )
        belief = decision.belief
        taken = int(decision.trace.steps[0])
        record.latent_steps.append(taken)
        record.milliseconds.append(milliseconds)
        result = simulator.run_chunk(actions[0], record=film is not None)
        if film is not None:
            frames = simulator.frames()
            film.frames += frames
            film.steps += [taken] * len(frames)
            score = float(decision.trace.exit_score[0, taken - 1]) if taken else float("nan")
            film.scores += [score] * len(frames)
        observation, done = result.observation, result.done
        record.steps += result.duration
        record.success = result.success
    return record
