"""Processors and GPUs that are kept for actors of one kind, also while some of them are dead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.bundles import learner_bundle, server_bundle

PATIENCE_S = 60.0


class Room:
    """A placement group of one bundle an actor. Without it a runner that waits for room would take that of an actor
    which has died, and it could never start again. In a Tune trial the trial's own group has their bundles.

    Args:
        custom: other resources of an actor: only nodes that have them are considered.
        pinned: options of an actor in a trial, by its number.
    """

    def __init__(
        self, cpus: float, gpus: float, custom: Mapping[str, float], actors: int,
        pinned: Callable[[int], dict[str, int]],
    ) -> None:  # fmt: skip
        self._share, self._pinned = {"CPU": float(cpus), "GPU": float(gpus)}, pinned
        self._group = ray.util.get_current_placement_group()
        self._own = self._group is None
        if self._own:
            bundle = {name: amount for name, amount in {**self._share, **custom}.items() if amount}
            self._group = placement_group([bundle or {"CPU": 0.001}] * actors, strategy="PACK")

    def options(self, number: int) -> dict[str, Any]:
        """Of this actor."""
        own = {"num_cpus": self._share["CPU"], "num_gpus": self._share["GPU"]}
        if not self._own:
            return {**own, **self._pinned(number)}
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=number)
        return {**own, "scheduling_strategy": strategy}

    def wait(self, whose: str) -> None:
        """Until all of it is there: a cluster may have to grow for it, or to get a lost machine back."""
        while not self._group.wait(PATIENCE_S):
            print(f"{whose}: the cluster has no room for all of them yet; waiting for it", flush=True)

    def leave(self) -> None:
        """Give it back."""
        if self._own and self._group is not None:
            remove_placement_group(self._group)
            self._group = None


def learner_room(config: Any, world: int) -> Room:
    """Of the learner ranks of an `AsyncPPOConfig`; not all of it may be there yet."""
    return Room(
        config.num_cpus_per_learner, config.num_gpus_per_learner, config.custom_resources_per_learner, world,
        lambda rank: learner_bundle(config, rank),
    )  # fmt: skip


def server_room(config: Any) -> Room:
    """Of its policy servers, likewise."""
    return Room(
        config.num_cpus_per_server, config.num_gpus_per_server, config.custom_resources_per_server,
        config.num_policy_servers,
        lambda index: server_bundle(config, index),
    )  # fmt: skip
