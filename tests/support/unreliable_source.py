"""A source whose reading dies, hangs and breaks; every member is one synthetic episode."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from avavla_ray.demonstrations.importers.source import Member, Skipped
from avavla_ray.demonstrations.schema import Episode
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import SimulatorFailure
from tests.support.demonstration_data import make_episode


class UnreliableSource:
    """Does what a member's detail says: kill or hang once, break always, and some quieter troubles.

    Args:
        folder: where it notes what has happened already.
    """

    suite = "libero_object"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def members(self) -> list[Member]:
        troubles = ("", "kill once", "hang once", "break", "corrupt", "skip", "not finite", "", "odd")
        return [Member(f"x-{i}", f"place {i}", {"trouble": trouble}) for i, trouble in enumerate(troubles)]

    def manifest(self) -> dict[str, Any]:
        return {"image_size": 32}

    def _first_time(self, member: Member) -> bool:
        note = self._folder / member.name
        known = note.exists()
        note.touch()
        return not known

    def read(self, member: Member) -> Iterator[Episode | Skipped]:
        trouble = member.detail["trouble"]
        if trouble == "kill once" and self._first_time(member):
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "hang once" and self._first_time(member):
            time.sleep(3600)
        if trouble == "break":
            raise SimulatorFailure("physics diverged")
        if trouble == "corrupt":
            raise InputError("wrong shape: of everything")
        if trouble == "odd":
            raise TypeError("nobody thought\nof this")
        if trouble == "skip":
            yield Skipped(member.name, "unknown task: wash dishes")
            return
        episode = make_episode(0, 4)
        if trouble == "not finite":
            episode.actions[2, 3] = float("nan")
        yield replace(episode, info=replace(episode.info, episode=member.name))
