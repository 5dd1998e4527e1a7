"""Processors and GPUs that are kept for the learner ranks, also while some of them are dead."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.bundles import learner_bundle

PATIENCE_S = 60.0


class LearnerRoom:
    """A placement group of one bundle a rank. Without it a runner that waits for room would take that of a rank which
    has died, and the ranks could never start again. In a Tune trial the trial's own group has their bundles.

    Args:
        config: an `AsyncPPOConfig`. world: ranks.
    """

    def __init__(self, config: Any, world: int) -> None:
        self._config = config
        self._group: PlacementGroup | None = None
        self._share = {"CPU": float(config.num_cpus_per_learner), "GPU": float(config.num_gpus_per_learner)}
        if ray.util.get_current_placement_group() is None:
            bundle = {name: amount for name, amount in self._share.items() if amount}
            self._group = placement_group([bundle or {"CPU": 0.001}] * world, strategy="PACK")
            self.wait([self._group.ready()])

    def options(self, rank: int) -> dict[str, Any]:
        """Of the actor of this rank."""
        own = {"num_cpus": self._share["CPU"], "num_gpus": self._share["GPU"]}
        if self._group is None:
            return {**own, **learner_bundle(self._config, rank)}
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
        return {**own, "scheduling_strategy": strategy}

    def wait(self, signs: list[Any]) -> None:
        """Until there is room, of which these references are the signs: a cluster may have to grow for it, or to get a
        lost machine back.

        Raises:
            RayError: what a sign raises.
        """
        while signs:
            try:
                ray.get(signs, timeout=PATIENCE_S)
                return
            except GetTimeoutError:
                print("learner: the cluster has no room for all ranks yet; waiting for it", flush=True)

    def leave(self) -> None:
        """Give it back."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None
