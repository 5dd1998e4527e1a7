"""What the dimensions of an action are."""

from __future__ import annotations

ARM = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def dimension_names(count: int) -> list[str]:
    """Of an action with `count` dimensions; numbers where it is not a single arm's."""
    return list(ARM) if count == len(ARM) else [str(index) for index in range(count)]


def closing_command(suite: str) -> int:
    """What closes the gripper in the simulator and in our data of a suite, +1 or -1; the other opens it."""
    # Data of several CALVIN scenes have names like calvin_abc.
    return -1 if suite.startswith("calvin_") else 1
