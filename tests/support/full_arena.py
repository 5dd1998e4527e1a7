"""In a module of its own, so that Ray's workers can import it."""

from __future__ import annotations

from actors.sweep_arena import Rules
from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting


class FullArena:
    """An arena on a full disk."""

    def left(self) -> None: ...

    def compete(self, setting: ExitSetting, rules: Rules) -> None:
        raise InputError("no space left in runs/sweep")
