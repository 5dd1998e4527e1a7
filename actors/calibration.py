"""Collecting the decisions that exit calibration learns from: an evaluation's actors play them, from drawn starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.evaluation_actors import SimulatorFactory
from actors.evaluation_pool import EvaluationPool
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import Simulator, SimulatorConfig
from avavla_ray.simulators.registry import make_simulator
from avavla_ray.training.gate_decisions import PlayedEpisode, Start, play_for_states


@dataclass(frozen=True)
class DrawnEpisode:
    """An episode whose decisions' latent states are kept; the other attributes are of `play_for_states`."""

    start: Start
    seed: int
    exit_threshold: float | None

    @property
    def task(self) -> int:
        """See `Play.task`."""
        return self.start.task

    def play(self, simulator: Simulator, agent: Agent, attempt: int) -> tuple[PlayedEpisode, dict[str, Any]]:
        """The episode, and what its simulator says of itself."""
        played = play_for_states(simulator, agent, self.start, seed=self.seed, exit_threshold=self.exit_threshold)
        return played, simulator.provenance()

    def lost(self, error: str, attempts: int, quarantined: bool) -> str:
        """Why it could not be played."""
        return error

    def __str__(self) -> str:
        return f"task {self.start.task}, episode {self.start.number}"


def collect(
    agent: Agent,
    config: SimulatorConfig,
    starts: Sequence[Start],
    num_actors: int,
    finished: Callable[[PlayedEpisode, dict[str, Any]], None],
    *,
    seed: int,
    exit_threshold: float | None,
    factory: SimulatorFactory = make_simulator,
    isolate: bool = True,
) -> dict[Start, str]:
    """Play every start, `num_actors` at a time, and call `finished` for each as it ends.

    Which actor plays what changes nothing in an episode. What becomes of one whose simulator or actor dies, and of a
    task that kills one after the other: see `EvaluationPool.play`.

    Args:
        finished: takes the episode and its simulator's provenance.
        seed, exit_threshold: see `play_for_states`.
        isolate: simulators in processes of their own, which die instead of the actor.

    Returns:
        Why, for each start that could not be played to its end.

    Raises:
        InputError: from the simulator's own checks.
        SimulatorFailure, RayError: no simulator could be constructed.
    """
    lost: dict[Start, str] = {}

    def ended(episode: DrawnEpisode, record: PlayedEpisode | str, described: dict[str, Any] | None) -> None:
        if isinstance(record, str):
            lost[episode.start] = record
        else:
            finished(record, described or {})

    with EvaluationPool(agent, config, num_actors, factory=factory, isolate=isolate) as pool:
        pool.play([DrawnEpisode(start, seed, exit_threshold) for start in starts], ended)
    return lost
