"""What post-calibration makes of the exit gate's logits. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avavla_ray.errors import InputError, check_known

KINDS = ("temperature", "isotonic")


@dataclass(frozen=True)
class GateMap:
    """A rising map of logits: straight lines between knots, and on with `slope` outside them.

    It rises strictly, so that it neither makes two scores equal nor swaps them, and lets gradients through.

    Attributes:
        kind: how it was fitted, "temperature" or "isotonic".
        logits: the gate's own, at each of n >= 1 knots, rising. calibrated: what becomes of each, rising.
        slope: before the first knot and after the last.
    """

    kind: str
    logits: tuple[float, ...]
    calibrated: tuple[float, ...]
    slope: float = 1.0


def temperature_map(temperature: float) -> GateMap:
    """Logits divided by a temperature (Guo et al., arXiv 1706.04599, section 4.2): no score crosses 1/2."""
    return GateMap("temperature", (0.0,), (0.0,), slope=1.0 / temperature)


def check_gate_maps(maps: tuple[GateMap, ...], max_steps: int) -> None:
    """Refuse maps that a gate can't apply.

    Args:
        maps: none, one for all latent steps, or one for each of those after which the gate is asked, 1..K-1.

    Raises:
        InputError: another number of maps, or one that does not rise, as far as float32 can tell.
    """
    if len(maps) not in (0, 1, max_steps - 1):
        raise InputError(f"latent.gate_maps holds {len(maps)} maps: give none, one, or {max_steps - 1}, one a step")
    for each in maps:
        check_known("kind of gate map", each.kind, KINDS)
        if not each.logits or len(each.logits) != len(each.calibrated):
            raise InputError("latent.gate_maps: a map needs as many calibrated logits as logits, and at least one")
        for values in (np.asarray(part, np.float32) for part in (each.logits, each.calibrated)):
            if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
                raise InputError("latent.gate_maps: a map's logits do not rise from knot to knot")
        if not (each.slope > 0 and np.isfinite(each.slope)):
            raise InputError(f"latent.gate_maps: slope {each.slope} is not positive")
