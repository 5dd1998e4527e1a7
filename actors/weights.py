"""Versioned weights on their way from the learner to everything that acts.

The newest weights live in the object store as one flat buffer. Their handle (version and reference) travels with every
request for a fragment, and whoever acts pulls the buffer only when the version is newer than its own. So nothing has
to be broadcast, a restarted runner is up to date with its first request, and there is no server process to lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from avavla_ray.policy.policy import AvaVlaPolicy


@dataclass(frozen=True)
class WeightHandle:
    """Where to find the weights of one version.

    Attributes:
        version: counts published updates; never goes back within a run.
        reference: one ObjectRef of a `WeightBuffer`, boxed so that Ray passes the reference on, not the buffer.
    """

    version: int
    reference: tuple[Any, ...]


class WeightStore:
    """The driver's record of the newest weights."""

    def __init__(self) -> None:
        self._newest: WeightHandle | None = None

    @property
    def newest(self) -> WeightHandle:
        if self._newest is None:
            raise RuntimeError("no weights have been published yet")
        return self._newest

    @property
    def version(self) -> int:
        """Newest published version, -1 before the first."""
        return -1 if self._newest is None else self._newest.version

    def publish(self, version: int, reference: Any) -> bool:
        """Make `reference` the newest weights; an older or equal version is ignored and answered False."""
        if version <= self.version:
            return False
        self._newest = WeightHandle(version, (reference,))
        return True


def pull_if_newer(policy: AvaVlaPolicy, version: int, handle: WeightHandle) -> int:
    """Copy the handle's weights into `policy` if they are newer than `version`; returns the version it now has."""
    from avavla_ray.policy.weights import load_flat

    if handle.version <= version:
        return version
    load_flat(policy, ray.get(handle.reference[0]))
    return handle.version
