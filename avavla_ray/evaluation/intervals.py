"""Confidence intervals of success rates."""

from __future__ import annotations

import math


def wilson(successes: int, episodes: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a binomial share (Wilson 1927); 95 % by default. No episodes: (0, 1).

    Raises:
        ValueError: successes outside 0..episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    if episodes == 0:
        return 0.0, 1.0
    share = successes / episodes
    scale = 1.0 + z * z / episodes
    centre = (share + z * z / (2 * episodes)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / episodes + z * z / (4 * episodes * episodes))
    # The ends are exact where rounding would leave the share itself outside.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == episodes else centre + half)
