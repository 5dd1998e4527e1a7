"""Has a task been done? The benchmark's own 34 predicates, from the user's clone."""

from __future__ import annotations

from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.simulators.calvin.installation import TASK_FILE, Installation, import_module
from avavla_ray.simulators.calvin.tasks import TASKS


class Oracle:
    """Compares two `get_info()` of the environment: when the task began, and now.

    Raises:
        InputError: the clone's tasks are not the 34 of the benchmark.
    """

    def __init__(self, found: Installation) -> None:
        import yaml

        module: Any = import_module("calvin_env.envs.tasks", found.root)
        settings = yaml.safe_load((found.root / TASK_FILE).read_text(encoding="utf-8"))["tasks"]
        if tuple(settings) != TASKS:
            raise InputError(f"{found.root / TASK_FILE} does not hold CALVIN's 34 tasks: check the clone")
        self.tasks = module.Tasks(settings)

    def done(self, task: str, start: dict[str, Any], now: dict[str, Any]) -> bool:
        """Whether `task` has been done between `start` and `now`."""
        return bool(self.tasks.get_task_info_for_set(start, now, {task}))
