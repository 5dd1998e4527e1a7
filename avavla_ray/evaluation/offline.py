"""Offline evaluation: the policy decides along a demonstration, and its chunks are compared with the demonstrated ones.

Teacher-forced: every decision sees what the demonstration shows, and the belief that the policy made of it so far.
Letters: C chunk length, A action dimension, N decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from avavla_ray.demonstrations.reader import EpisodeReader
from avavla_ray.demonstrations.schema import EpisodeInfo
from avavla_ray.dimensions import closing_command
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Observation


@dataclass
class OfflineRecord:
    """What one demonstration at one exit setting leaves in the ledger.

    Normalised: in the policy's action space, where demonstrated actions are clipped to [-1, 1] as in training. In
    units: those of the data that the policy was trained on, unclipped.

    Attributes:
        steps: demonstrated steps that were compared.
        errors: (A,) sum over steps of the normalised absolute error. unit_errors: (A,) the same in units.
        first_errors: (A,) sum over decisions of the normalised absolute error of the chunk's first action.
        gripper_agreements: steps whose executed gripper command, open or close, is the demonstrated one.
        norms: (N,) L2 norm of the whole chunk's error in units; a chunk that the episode's end cuts counts as cut.
        step_norm: sum over steps of the L2 norm of one action's error in units.
        latent_steps, milliseconds: (N,).
    """

    setting: str
    dataset: str
    episode: str
    task: int
    instruction: str
    steps: int = 0
    errors: list[float] = field(default_factory=list)
    unit_errors: list[float] = field(default_factory=list)
    first_errors: list[float] = field(default_factory=list)
    gripper_agreements: int = 0
    norms: list[float] = field(default_factory=list)
    step_norm: float = 0.0
    latent_steps: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


class Demonstration(NamedTuple):
    """An episode at its decisions.

    observations: N, every C steps, decoded and otherwise as stored. actions: (T, A) in the environment's convention.
    """

    dataset: str
    info: EpisodeInfo
    observations: list[Observation]
    actions: np.ndarray


def load_demonstration(reader: EpisodeReader, index: int, chunk: int) -> Demonstration:
    """Read what a policy with chunks of `chunk` actions sees of an episode.

    Raises:
        InputError: a file is missing or damaged.
    """
    info = reader.metadata.episodes[index]
    proprio, actions = reader.numbers(index)
    starts = range(0, info.steps, chunk)
    images = reader.images(index, starts)
    observations = [
        Observation(pictures, proprio[start], info.instruction) for pictures, start in zip(images, starts, strict=True)
    ]
    return Demonstration(reader.metadata.name, info, observations, actions)


def walk(agent: Agent, demonstration: Demonstration, setting: ExitSetting) -> OfflineRecord:
    """Decide chunk by chunk along a demonstration, one episode a batch, with the mean latent updates.

    Observations go through `Agent.decide` as those of a simulator do, so milliseconds hold their preparation too.

    Raises:
        InputError: an observation that the policy can't take, or the policy computed actions that are no numbers.
    """
    config, units, info = agent.policy.config, agent.statistics.action, demonstration.info
    C = config.chunk
    record = OfflineRecord(setting.label, demonstration.dataset, info.episode, info.task, info.instruction)
    belief = agent.policy.initial_belief(1, agent.device)
    options, sums = setting.of(info.instruction).decide_options(), np.zeros((3, config.action_dim))
    for number, observation in enumerate(demonstration.observations):
        decision, executed, milliseconds = agent.decide([observation], belief, **options)
        belief = decision.belief
        shown = demonstration.actions[number * C : (number + 1) * C]
        wanted = _in_units(shown, config.gripper, closing_command(agent.statistics.name))
        chunk = decision.chunk[0, : len(shown)].float().cpu().numpy()
        if not np.isfinite(chunk).all():
            raise InputError(
                f"the policy computed actions that are no numbers (demonstration {info.episode}, step {number * C}): "
                "its weights are broken, train or copy the checkpoint again"
            )
        normalised, error = np.abs(chunk - units.normalise(wanted)), units.unnormalise(chunk) - wanted
        sums += [normalised.sum(0), np.abs(error).sum(0), normalised[0]]
        closes = shown[:, -1] >= 0
        record.steps += len(shown)
        record.gripper_agreements += int(((executed[0, : len(shown), -1] > 0) == closes).sum())
        record.norms.append(float(np.linalg.norm(error)))
        record.step_norm += float(np.linalg.norm(error, axis=-1).sum())
        record.latent_steps.append(int(decision.trace.steps[0]))
        record.milliseconds.append(milliseconds)
    record.errors, record.unit_errors, record.first_errors = sums.tolist()
    return record


def _in_units(actions: np.ndarray, gripper: str, closing: int) -> np.ndarray:
    """Demonstrated actions (T, A), whose gripper `closing` closes, in the units that the policy acts in."""
    if gripper == "signed":
        return actions
    turned = actions.copy()
    turned[:, -1] = (1.0 - closing * actions[:, -1]) / 2.0
    return turned
