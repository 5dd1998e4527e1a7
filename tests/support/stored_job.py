"""A job that reads a checkpoint, keeps a ledger, and may end in several ways.

python -m tests.support.stored_job --output URI ...
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avavla_ray.command_line import run_job
from avavla_ray.errors import InputError
from avavla_ray.files import append_line, write_json
from avavla_ray.provenance import provenance
from avavla_ray.training.output import check_output


@dataclass(frozen=True)
class Settings:
    output: Path = Path("runs/stored")
    checkpoint: Path | None = None
    exit_preset: Path | None = None
    recipe: str = "paper"
    demos: tuple[str, ...] = ()
    end: Literal["well", "wrong", "bug", "wait"] = "well"
    line: str = "line"
    run_id: str | None = None
    resume: bool = False


def main(settings: Settings) -> None:
    print(f"resume: {settings.resume}")
    if settings.run_id is not None:
        check_output(settings.output, {"recipe": settings.recipe}, settings.resume)
    append_line(settings.output / "ledger.jsonl", settings.line)
    write_json(settings.output / "provenance.json", provenance(seed=0))
    for name in ("checkpoint", "exit_preset", "recipe"):
        value = getattr(settings, name)
        if value is not None and Path(value).exists():
            content = Path(value).read_text() if Path(value).is_file() else sorted(p.name for p in value.iterdir())
            print(f"{name}: {content}")
    print(f"demos: {settings.demos}", flush=True)
    if settings.end == "wrong":
        raise InputError("it was wrong")
    if settings.end == "bug":
        raise RuntimeError("a bug")
    if settings.end == "wait":
        print("waiting", flush=True)
        while signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            time.sleep(0.05)


if __name__ == "__main__":
    sys.argv[0] = "stored_job.py"
    run_job(main, Settings)
