"""What every job's command line shares: frozen dataclasses read by tyro, exit status, one-line errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from avavla_ray.errors import InputError

Settings = TypeVar("Settings")


def run_job(
    main: Callable[[Settings], None], settings_type: type[Settings], description: str | None = None
) -> NoReturn:
    """Parse the command line into `settings_type`, run `main`, and exit.

    Exit status: 0 done, 2 bad input (one line on standard error), 1 anything else (with a traceback).
    """
    import tyro

    settings = tyro.cli(settings_type, description=description or (sys.modules["__main__"].__doc__ or "").strip())
    try:
        main(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(1) from None
    sys.stdout.flush()
    raise SystemExit(0)


def default_workers() -> int:
    """Simulator actors that this machine carries: one a core, at least one."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
