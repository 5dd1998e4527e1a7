"""Which bundle of a Tune trial's placement group belongs to whom: the trial, its runners, its learners, its servers.

RLlib pins each runner to its own. Whoever else took that would leave the runner without room for ever, so that the
others are pinned too.
"""

from __future__ import annotations

from typing import Any

import ray


def learner_bundle(config: Any, rank: int) -> dict[str, int]:
    """Options of the actor of this rank; none outside a trial. `config` is an AsyncPPOConfig."""
    return _pinned(1 + config.num_env_runners + rank)


def server_bundle(config: Any, index: int) -> dict[str, int]:
    """Options of this policy server's actor, likewise."""
    return _pinned(1 + config.num_env_runners + config.num_learners + index)


def _pinned(bundle: int) -> dict[str, int]:
    return {} if ray.util.get_current_placement_group() is None else {"placement_group_bundle_index": bundle}
