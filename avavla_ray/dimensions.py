"""Names of action dimensions, for metrics, tables and plots."""

from __future__ import annotations

ARM = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def dimension_names(count: int) -> list[str]:
    """Of an action with `count` dimensions; numbers where it is not a single arm's."""
    return list(ARM) if count == len(ARM) else [str(index) for index in range(count)]
