"""One evaluated episode: the official loop, at one exit setting.

LIBERO's protocol: the benchmark's fixed initial states, settling steps, the suite's step limit, success by the task's
own check (avavla.md, "Evaluation protocols"). One episode is one batch of size 1, so that milliseconds are those of a
single robot.
"""

from __future__ import annotations

import torch

from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator


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
    options = setting.of(simulator.spec.instructions[task]).decide_options()
    observation = simulator.reset(task, initial_state=initial_state, seed=initial_state)
    belief = agent.policy.initial_belief(1)
    record = EpisodeRecord(setting.label, task, initial_state, success=False, steps=0)
    done = False
    while not done:
        with torch.no_grad():
            decision, actions, milliseconds = agent.decide([observation], belief, **options)
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
