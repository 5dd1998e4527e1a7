"""LIBERO without pictures, for experts, which don't look."""

from __future__ import annotations

from avavla_ray.simulators.libero.adapter import LiberoSimulator


class BlindSimulator(LiberoSimulator):
    """The same physics and the same proprioception; images are black. Rendering would take most of the time."""

    def _watch(self, deciding: bool, recording: bool = False) -> None:
        self.env.env.watching = set()
