"""Offline evaluation on a cluster: demonstrations handed out one by one to actors that each hold the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ray
import torch
from ray.util import ActorPool

from avavla_ray.demonstrations.reader import DatasetMetadata, EpisodeReader
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.evaluation.offline import OfflineRecord, load_demonstration, walk
from avavla_ray.machines import for_simulators
from avavla_ray.policy.agent import Agent

ATTEMPTS = 3  # at a demonstration whose actor dies, each in a new one


class DataUnits(NamedTuple):
    """A data set, and the policy with the units that it acts in there."""

    metadata: DatasetMetadata
    agent: Agent


class Walk(NamedTuple):
    """A demonstration, and the exit settings to walk it at."""

    dataset: str
    episode: int
    settings: tuple[ExitSetting, ...]


class OfflineEvaluator:
    """Walks demonstrations; decodes each once for all its settings.

    The policy comes with the first demonstration, not into the constructor: Ray warns of every large argument that a
    restart needs again.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._data: dict[str, tuple[EpisodeReader, Agent]] = {}

    def walk(self, data: list[ray.ObjectRef], task: Walk) -> list[OfflineRecord]:
        """The records of one demonstration, one a setting.

        Args:
            data: a reference to the data sets by name, in a list so that Ray does not read it at every call.
        """
        cold = not self._data
        if cold:
            units: dict[str, DataUnits] = ray.get(data[0])
            self._data = {
                name: (EpisodeReader(metadata, cache_megabytes=0), agent) for name, (metadata, agent) in units.items()
            }
        reader, agent = self._data[task.dataset]
        demonstration = load_demonstration(reader, task.episode, agent.policy.config.chunk)
        if cold:  # the first decision of a process allocates and chooses kernels: no robot's latency
            walk(agent, demonstration._replace(observations=demonstration.observations[:1]), task.settings[0])
        return [walk(agent, demonstration, setting) for setting in task.settings]


RemoteOfflineEvaluator: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=ATTEMPTS - 1)(OfflineEvaluator)


def walk_demonstrations(
    data: Mapping[str, DataUnits],
    walks: Sequence[Walk],
    num_actors: int,
    finished: Callable[[OfflineRecord], None],
) -> None:
    """Walk every demonstration, `num_actors` at a time, and call `finished` with each record.

    A demonstration whose actor dies is walked again, at most ATTEMPTS times in all.

    Raises:
        InputError: a demonstration that can't be read, or that the policy can't take.
        RayActorError: a demonstration's actor died at every attempt.
    """
    held = [ray.put(dict(data))]
    remote = RemoteOfflineEvaluator.options(resources=for_simulators())  # whose machines have the processors
    actors = [remote.remote() for _ in range(max(1, min(num_actors, len(walks))))]
    try:
        for records in ActorPool(actors).map_unordered(lambda actor, each: actor.walk.remote(held, each), walks):
            for record in records:
                finished(record)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from (None if isinstance(error.cause, InputError) else error)
    finally:
        for actor in actors:
            ray.kill(actor)
