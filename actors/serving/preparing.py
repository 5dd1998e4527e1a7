"""Requests checked and brought into the policy's terms as they arrive, while the policy decides on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.serving.messages import Ask, BeliefArrays, PolicyFacts
from avavla_ray.policy.preparation import Preparation
from avavla_ray.policy.units import pick_statistics


class Preparer:
    """What `avavla_ray.policy.robot.prepare` does, on the HTTP side: it needs no weights. May be called by threads.

    Args:
        unnorm_key: data set whose units are meant where a request names none.
    """

    def __init__(self, facts: PolicyFacts, unnorm_key: str | None) -> None:
        self._statistics = facts.statistics
        self._unnorm_key = unnorm_key
        self._config = facts.config
        self._preparation = Preparation(facts.config)

    def __call__(
        self,
        images: Sequence[np.ndarray],
        instruction: str,
        proprio: np.ndarray | None,
        belief: BeliefArrays | None,
        unnorm_key: str | None,
    ) -> Ask:
        """See `AvaVlaPolicy.act`.

        Raises:
            InputError: names the field that is wrong, what was expected and what came.
        """
        statistics = pick_statistics(self._config, self._statistics, unnorm_key or self._unnorm_key)
        return Ask(
            self._preparation.images(images),
            self._preparation.text(instruction).numpy(),
            self._preparation.proprio(proprio, statistics),
            belief,
            statistics.name,
        )
