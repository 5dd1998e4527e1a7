"""Metrics of a training worker: worth having, not worth ending a run for, nor waiting for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.tracked_run import Run, attach

PENDING = "mlflow_pending_worker.jsonl"  # beside that of the job, which is another process


class Telemetry:
    """Logs to an MLflow run that another process opened. What its store does not take waits in a file of the run's
    folder until it does, in this process or in the one that goes on after it.
    """

    def __init__(self, tracking: tuple[str, str] | None, output: Path) -> None:
        """
        Args:
            tracking: (store, run id); None logs nothing.
            output: folder of the run.
        """
        self._tracking, self._pending = tracking, output / PENDING
        self._run: Run | None = None  # opened with the first numbers: until then, another process may still hold it

    @property
    def waiting(self) -> int:
        """Calls whose metrics the store has not taken yet."""
        return 0 if self._run is None else self._run.waiting

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at `step`; raises InputError where one is not finite."""
        if self._tracking is None:
            return
        if self._run is None:
            try:
                self._run = attach(*self._tracking, pending=self._pending)
            except InputError as error:  # one that went silent may hold the file for a while
                print(f"metrics of step {step} are left out: {error}", flush=True)
                return
        self._run.log_metrics(metrics, step=step)

    def close(self) -> None:
        """Give the store some seconds, and say where the rest waits."""
        if self._run is not None:
            self._run.close()
