"""References to objects that are gone for good, as after the loss of a machine."""

from __future__ import annotations

import time
from typing import Any

import ray


@ray.remote(num_cpus=0)
class _Owner:
    """Owns what it puts into the object store, and takes it along when it dies."""

    def put(self, value: Any) -> list[ray.ObjectRef]:
        return [ray.put(value)]


def lost_reference(value: Any, timeout_s: float = 60.0) -> ray.ObjectRef:
    """A reference to `value` whose owner is dead; returns once Ray knows."""
    owner = _Owner.remote()
    (reference,) = ray.get(owner.put.remote(value))
    ray.kill(owner)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            ray.get(reference)
        except ray.exceptions.OwnerDiedError:
            return reference
        time.sleep(0.05)
    raise TimeoutError("Ray still hands out an object whose owner was killed")
