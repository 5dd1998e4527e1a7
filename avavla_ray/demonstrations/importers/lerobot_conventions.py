"""Others' conventions turned into ours: how pictures lie, the gripper's command, rotation vectors, task numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avavla_ray.dimensions import closing_command
from avavla_ray.errors import InputError
from avavla_ray.simulators.registry import LIBERO_SUITES, SUITES, suite_spec

# How the pictures lie -> how to lay them as our simulators show them.
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upright": lambda pixels: pixels,
    "half_turn": lambda pixels: pixels[::-1, ::-1],
    "upside_down": lambda pixels: pixels[::-1],
    "mirrored": lambda pixels: pixels[:, ::-1],
}
SIGNED = "signed"
# Other gripper commands -> how far each closes, from 0 to 1.
FRACTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "open_fraction": lambda commands: 1 - commands,
    "closed_fraction": lambda commands: commands,
}
GRIPPERS = (SIGNED, *FRACTIONS)
ROUNDING = 1e-3  # of a gripper command, past the ends of its range
LIBERO_PROPRIO = 8  # position 3, rotation vector 3, fingers 2
UNKNOWN_TASK = -1  # the suite has no task of this instruction, or several


def with_our_gripper(actions: np.ndarray, gripper: str, suite: str) -> np.ndarray:
    """(T, A) with the last number as our simulator of `suite` takes it.

    Args:
        gripper: what it is, one of GRIPPERS; "signed" is the simulator's own.

    Raises:
        InputError: "sort: particulars"; a command out of range.
    """
    commands = actions[:, -1]
    least = -1.0 if gripper == SIGNED else 0.0
    if commands.min() < least - ROUNDING or commands.max() > 1 + ROUNDING:
        raise InputError(
            f"out of range: gripper commands from {commands.min():g} to {commands.max():g}, "
            f"expected {least:g} to 1 ({gripper})"
        )
    commands = np.clip(commands, least, 1)
    if gripper != SIGNED:
        commands = closing_command(suite) * (2 * FRACTIONS[gripper](commands) - 1)
    return np.concatenate([actions[:, :-1], commands[:, None]], axis=1)


def with_our_rotation(proprio: np.ndarray, suite: str) -> np.ndarray:
    """(T, P) with the hand's rotation vector of a LIBERO suite as our simulator chooses it, in the same bits where it
    is so already.

    A turn by a about an axis is one by 2 pi - a about the opposite axis; ours is that whose x is not negative
    (`axis_angle` of the LIBERO simulator).
    """
    if suite not in LIBERO_SUITES or proprio.shape[1] != LIBERO_PROPRIO:
        return proprio
    proprio = proprio.copy()
    other = proprio[:, 3] < 0
    turns = proprio[other, 3:6].astype(np.float64)
    proprio[other, 3:6] = turns * (1 - 2 * np.pi / np.linalg.norm(turns, axis=1, keepdims=True))
    return proprio


def task_numbers(suite: str) -> dict[str, int] | None:
    """Instruction -> number of the task, of a suite of ours; None where the data set's own numbers are all there is.

    Instructions that several tasks share (of libero_90, in different scenes) are not among them.

    Raises:
        InputError: the suite's benchmark is not installed.
    """
    if suite not in SUITES:
        return None
    instructions = suite_spec(suite).instructions
    return {text: index for index, text in enumerate(instructions) if instructions.count(text) == 1}
