"""Episodes played by simulators that are there for this only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from actors.evaluation_actors import SimulatorFactory
from actors.evaluation_pool import Episode, EvaluationPool
from avavla_ray.evaluation.episode import EpisodeRecord, Film
from avavla_ray.policy.agent import Agent
from avavla_ray.simulators.base import SimulatorConfig
from avavla_ray.simulators.registry import make_simulator


def evaluate(
    agent: Agent,
    config: SimulatorConfig,
    episodes: Iterable[Episode],
    num_actors: int,
    finished: Callable[[Episode, EpisodeRecord, Film | None], bool | None],
    factory: SimulatorFactory = make_simulator,
    isolate: bool = True,
) -> dict[str, object]:
    """`EvaluationPool.play` in a pool of its own.

    Returns:
        The simulator's provenance.

    Raises:
        see `EvaluationPool.play`.
    """
    with EvaluationPool(agent, config, num_actors, factory=factory, isolate=isolate) as pool:
        pool.play(episodes, finished)
        return pool.provenance
