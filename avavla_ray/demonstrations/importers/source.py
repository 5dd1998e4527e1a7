"""What every importer offers: a list of members, and the episodes of each, one member in memory at a time.

A member's trouble never ends an import. It is told in one line, "sort: particulars" ("not finite: action 3 of
step 12"), and trouble is counted by its sort.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from avavla_ray.demonstrations.schema import Episode
from avavla_ray.errors import InputError, check_known
from avavla_ray.simulators.registry import load

KINDS = {
    "libero-hdf5": "avavla_ray.demonstrations.importers.libero_hdf5:LiberoHdf5",
    "calvin": "avavla_ray.demonstrations.importers.calvin_npz:CalvinNpz",
    "lerobot": "avavla_ray.demonstrations.importers.lerobot:LeRobot",
}
UNKNOWN_SEED = -1  # nobody says with which seed the start of an imported episode was drawn


class Member(NamedTuple):
    """One unit of work: a file, or an episode of one.

    Attributes:
        name: unique and stable; the episodes written from it are named after it.
        where: its place inside the source, for messages.
        detail: what its episodes depend on, JSON-ready: when it changes, the member is imported again.
    """

    name: str
    where: str
    detail: dict[str, Any]


class Skipped(NamedTuple):
    """An episode that is left out on purpose or because it is broken.

    Attributes:
        reason: "sort: particulars".
    """

    episode: str
    reason: str


class Source(Protocol):
    """Demonstrations in somebody's layout.

    Attributes:
        suite: name of the data set, the key of its statistics.
    """

    suite: str

    def members(self) -> list[Member]:
        """All of them in a fixed order; cheap, reads no more than indices."""
        ...

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        """The member's episodes.

        Raises:
            InputError: the member is corrupt. SimulatorFailure: a simulator broke; the member may be tried again.
        """
        ...

    def manifest(self) -> dict[str, Any]:
        """What dataset.json says of where the data are from; JSON-ready.

        Format and version, image_size, cameras, fps, units, and every option that the episodes depend on: a folder
        whose episodes were made with another manifest is not continued.
        """
        ...


def open_source(kind: str, path: str | Path, **options: Any) -> Source:
    """The demonstrations at `path`, in the layout `kind`.

    Args:
        options: of the kind's class in `KINDS`.

    Raises:
        InputError: unknown kind or option, nothing there, or what is there is not in this layout.
    """
    check_known("kind of demonstrations", kind, KINDS)
    if not Path(path).exists():
        raise InputError(f"no demonstrations at {path}: give the downloaded folder or file with --source")
    made = load(KINDS[kind])
    known = set(inspect.signature(made).parameters)
    for option in options:
        if option not in known:
            raise InputError(f"--{option.replace('_', '-')} does not go with --kind {kind}: leave it out")
    return made(Path(path), **options)


def sort_of(reason: str) -> str:
    """The sort of trouble in a reason, "not finite" for "not finite: action 3 of step 12"."""
    return reason.partition(":")[0]


def check_array(name: str, array: np.ndarray, shape: tuple[int | None, ...], kind: str) -> None:
    """Refuse what is not an array of this kind, shape and finite numbers.

    Args:
        shape: with None where any length is right. kind: "float" or "uint8".

    Raises:
        InputError: "sort: particulars".
    """
    check_form(name, array, shape, kind)
    if kind == "float" and not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(f"not finite: {name}{first} is {array[tuple(first)]}")


def check_form(name: str, array: Any, shape: tuple[int | None, ...], kind: str) -> None:
    """`check_array` without a look at the numbers, for what has an array's dtype and shape and is not read yet."""
    right = np.issubdtype(array.dtype, np.floating) if kind == "float" else array.dtype == np.dtype(kind)
    if not right:
        raise InputError(f"wrong dtype: {name} is {array.dtype}, expected {kind}")
    fits = len(shape) == array.ndim and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(f"wrong shape: {name} is {array.shape}, expected ({expected})")


def check_actions(actions: np.ndarray) -> None:
    """Raise InputError unless all actions (T, A) lie in [-1, 1], up to rounding, and the last of each is -1 or 1."""
    if np.abs(actions).max(initial=0.0) > 1 + 1e-6:
        step, column = np.argwhere(np.abs(actions) > 1 + 1e-6)[0]
        raise InputError(f"out of range: action {column} of step {step} is {actions[step, column]:.4g}, not in [-1, 1]")
    odd = np.flatnonzero(np.abs(actions[:, -1]) != 1)
    if len(odd):
        raise InputError(
            f"out of range: the gripper's command of step {odd[0]} is {actions[odd[0], -1]:.4g}, not -1 or 1"
        )
