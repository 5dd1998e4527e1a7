"""Metrics of a long run: worth having, not worth ending it for."""

from __future__ import annotations

from collections.abc import Mapping

from avavla_ray.tracking import Run, attach


class Telemetry:
    """Logs to an MLflow run that another process opened, as long as its store answers.

    What the store does not take (its disk is full, it went away, or it is a file on another machine) is lost, said once
    and counted.

    Attributes:
        lost: calls whose metrics were lost.
    """

    def __init__(self, tracking: tuple[str, str] | None) -> None:
        """
        Args:
            tracking: (store, run id); None logs nothing.
        """
        self._tracking = tracking
        self._run: Run | None = None
        self.lost = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at `step`, or lose them."""
        if self._tracking is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            if self._run is None:
                self._run = attach(*self._tracking)
            self._run.log_metrics(metrics, step=step)
        except MlflowException as error:
            self._run = None
            self.lost += 1
            if self.lost == 1:
                first = str(error).strip().splitlines()[0]
                print(
                    f"MLflow at {self._tracking[0]} took no metrics at step {step} ({first}); training goes on without "
                    "them until it does",
                    flush=True,
                )
