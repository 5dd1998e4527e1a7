"""Decisions that exit calibration learns from: latent states of episodes that the policy itself played.

Letters: T decisions of an episode, K latent steps, Z latent width.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path, remove_temporaries
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator

_PURPOSE = 1  # of these draws


class Start(NamedTuple):
    """Episode `number` of a task, from a drawn start: the benchmark's fixed ones are left to evaluation."""

    task: int
    number: int

    def seed(self, run: int) -> int:
        """Of the simulator's draw, in the run of this seed; never the one of demonstrations with the same numbers, from
        which the policy was cloned."""
        return int(np.random.SeedSequence([run, self.task, self.number, _PURPOSE]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class PlayedEpisode:
    """What calibration keeps of an episode.

    Attributes:
        states: (T, K + 1, Z) float32, z_0 to z_K of a full-depth unroll with mean updates, however many steps were
            taken. latent_steps: (T,) int64, those taken. success: of the task. steps: of the environment.
    """

    start: Start
    states: np.ndarray
    latent_steps: np.ndarray
    success: bool
    steps: int


@torch.no_grad()
def play_for_states(
    simulator: Simulator, agent: Agent, start: Start, *, seed: int, exit_threshold: float | None
) -> PlayedEpisode:
    """Play an episode as evaluation does, one robot with mean updates.

    Args:
        seed: of the run. exit_threshold: stop thinking when the gate exceeds it; None thinks to full depth.

    Raises:
        SimulatorFailure: the simulator broke.
    """
    policy = agent.policy
    K = policy.config.latent.max_steps
    options: dict[str, Any] = {"depth": K} if exit_threshold is None else {"exit_threshold": exit_threshold}
    observation, belief = simulator.reset(start.task, seed=start.seed(seed)), policy.initial_belief(1, agent.device)
    states, taken, steps, done, success = [], [], 0, False, False
    while not done:
        decision, actions, _ = agent.decide([observation], belief, **options)
        belief, trace = decision.belief, decision.trace
        full = trace.z if exit_threshold is None else policy.unroll(decision.context, trace.z[:, 0], K)
        states.append(full[0].cpu().numpy())
        taken.append(int(trace.steps[0]))
        result = simulator.run_chunk(actions[0])
        observation, done, success = result.observation, result.done, result.success
        steps += result.duration
    return PlayedEpisode(start, np.stack(states), np.array(taken, np.int64), success, steps)


class DecisionFolder:
    """Played episodes, a file each that is whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, played: PlayedEpisode) -> None:
        """Keep an episode.

        Raises:
            InputError: the folder cannot be written, or its disk is full.
        """
        with atomic_path(self._file(played.start)) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream, states=played.states, latent_steps=played.latent_steps, success=played.success,
                steps=played.steps,
            )  # fmt: skip

    def __contains__(self, start: Start) -> bool:
        return self._file(start).is_file()

    def load(self, start: Start) -> PlayedEpisode:
        """Raises InputError when the file is absent or damaged."""
        path = self._file(start)
        try:
            with np.load(path, allow_pickle=False) as file:
                return PlayedEpisode(
                    start, file["states"], file["latent_steps"], bool(file["success"]), int(file["steps"])
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read ({error}): remove it, --resume plays it again") from error

    def tidy(self) -> None:
        """Remove what a killed process was writing."""
        remove_temporaries(self.path)

    def _file(self, start: Start) -> Path:
        return self.path / f"task_{start.task:03d}_episode_{start.number:05d}.npz"
