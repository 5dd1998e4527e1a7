"""Send what a run has not got through to MLflow: python -m avavla_ray.send_metrics OUTPUT"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.tracked_run import Run
from avavla_ray.tracking import PENDING, noted_run


@dataclass(frozen=True)
class Settings:
    output: tyro.conf.Positional[Path]
    """Folder of the run."""
    tracking_uri: str | None = None
    """MLflow store, where its address needs a password; the one that the run noted when left out."""


def send_pending(output: Path, uri: str | None = None) -> int:
    """Send what the run in `output` has not got through to MLflow; the number of entries.

    Args:
        uri: of the store, where it needs a password; the noted one when left out.

    Raises:
        InputError: no such run, or the store does not take them.
    """
    noted = noted_run(output)
    if noted is None:
        raise InputError(f"{output} holds no run that logs to MLflow")
    sent = 0
    for path in sorted(output.glob(f"{Path(PENDING).stem}*.jsonl")):
        waiting = len(path.read_text(encoding="utf-8").splitlines())
        run = Run(noted["run"], noted["experiment"], uri or noted["uri"], path)
        run.close(grace=60.0 + waiting)
        if run.waiting:
            raise InputError(f"{run.waiting} entries still wait in {path}: try again when {noted['uri']} answers")
        sent += waiting
    return sent


def main(settings: Settings) -> None:
    sent = send_pending(settings.output, settings.tracking_uri)
    print(f"{sent} entries sent" if sent else f"nothing waits in {settings.output}")


if __name__ == "__main__":
    run_job(main, Settings)
