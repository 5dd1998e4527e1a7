"""One evaluated episode: the official loop, at one exit setting.

LIBERO's protocol: the benchmark's fixed initial states, settling steps, the suite's step limit, success by the task's
own check (avavla.md, "Evaluation protocols"). One episode is one batch of size 1, so that milliseconds are those of a
single robot.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from avavla_ray.evaluation.episode import EpisodeRecord, Film, round_scores
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.types import Belief, DecisionBatch
from avavla_ray.simulators.base import Observation, Simulator


class Decider(Protocol):
    """What decides in an evaluation: an `Agent`, or whoever asks one."""

    @property
    def config(self) -> PolicyConfig: ...

    def initial_belief(self) -> Belief:
        """What an episode starts with, of batch 1."""
        ...

    def decide(
        self, observations: list[Observation], belief: Belief, **options: Any
    ) -> tuple[DecisionBatch, np.ndarray, float]:
        """See `Agent.decide`."""
        ...


def begin_film(film: Film, agent: Decider, setting: ExitSetting) -> None:
    """Note what a film's pictures are drawn with."""
    film.crop, film.threshold = agent.config.backbone.crop, setting.exit_threshold


def add_to_film(
    film: Film, agent: Decider, simulator: Simulator, observation: Observation, decision: DecisionBatch
) -> None:
    """Add a decision, of batch 1, whose chunk the simulator has run with `record`.

    Args:
        observation: that was decided on.
    """
    config, taken = agent.config, int(decision.trace.steps[0])
    weights = decision.visual_weights[0].float().cpu().numpy() if config.attention.enabled else None
    scores = decision.trace.exit_score[0, :taken].tolist()
    film.add(simulator.frames(), taken, scores, weights, observation.images[: config.backbone.num_cameras])


def play_episode(
    simulator: Simulator,
    agent: Decider,
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
    own = setting.of(simulator.spec.instructions[task])
    options = own.decide_options()
    if film is not None:
        begin_film(film, agent, own)
    observation = simulator.reset(task, initial_state=initial_state, seed=initial_state)
    belief = agent.initial_belief()
    record = EpisodeRecord(setting.label, task, initial_state, success=False, steps=0)
    done = False
    while not done:
        with torch.no_grad():
            decision, actions, milliseconds = agent.decide([observation], belief, **options)
        belief = decision.belief
        taken = int(decision.trace.steps[0])
        scores = round_scores(decision.trace.exit_score[0, :taken].tolist())
        record.latent_steps.append(taken)
        record.scores.append(scores)
        record.milliseconds.append(milliseconds)
        result = simulator.run_chunk(actions[0], record=film is not None)
        if film is not None:
            add_to_film(film, agent, simulator, observation, decision)
        observation, done = result.observation, result.done
        record.steps += result.duration
        record.success = result.success
    return record
