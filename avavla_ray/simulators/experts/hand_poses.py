"""Ways to hold the hand other than straight down."""

from __future__ import annotations

import numpy as np

from avavla_ray.simulators.experts.hand import Hand

DOWN = np.array([0.0, 0.0, -1.0])


def facing(hand: Hand, pointing: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a hand that points along `pointing` and closes along `closing`, perpendicular unit vectors.

    Of the two such rotations, half a turn apart, the one that leaves the wrist less twisted.
    """
    sideways = [np.stack([sign * closing, np.cross(pointing, sign * closing), pointing], axis=1) for sign in (1, -1)]
    return min(sideways, key=lambda rotation: abs(hand.twist + float(hand.rotation_error(rotation) @ pointing)))


def leaning(towards: np.ndarray, tilt: float) -> np.ndarray:
    """(3,) direction of a hand that points down but for `tilt` radians towards the horizontal unit vector."""
    return np.cos(tilt) * DOWN + np.sin(tilt) * towards
