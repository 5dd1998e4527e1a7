"""What every job's command line shares: frozen dataclasses read by tyro, exit status, one-line errors."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar, get_type_hints

from avavla_ray.errors import InputError

Settings = TypeVar("Settings")


def policy_servers(placement: str, num_servers: int | None, server_gpus: float | None) -> int:
    """How many policy servers a job starts, of its --placement, --num-servers and --server-gpus; None is not given.

    Raises:
        InputError: an option of servers where there are none, or out of its range.
    """
    for option, given, least in (("--num-servers", num_servers, 1), ("--server-gpus", server_gpus, 0)):
        if given is not None and placement == "copy":
            raise InputError(f"{option} is of policy servers: add --placement server, or leave it out")
        if given is not None and given < least:
            raise InputError(f"{option} {given}: give at least {least}")
    return 0 if placement == "copy" else num_servers or 1


def run_job(
    main: Callable[[Settings], None], settings_type: type[Settings], description: str | None = None
) -> NoReturn:
    """Parse the command line into `settings_type`, run `main`, and exit.

    Exit status: 0 done, 2 bad input (one line on standard error), 1 anything else (with a traceback, unless it was
    told to end).
    """
    import tyro

    from avavla_ray.run_identity import continued, with_default_output
    from avavla_ray.storage.arguments import brought

    job = Path(sys.argv[0]).stem
    try:
        words = with_default_output(switch_values(sys.argv[1:], settings_type), job, settings_type, os.environ)
        about = description or (sys.modules["__main__"].__doc__ or "").strip()
        if any("://" in word for word in words):
            tyro.cli(settings_type, description=about, args=words)  # what is wrong is said before stores are asked
        with _told_to_end(), brought(words, settings_type) as words:
            settings = tyro.cli(settings_type, description=about, args=words)
            with continued(settings, job) as going, _told_to_end():
                if going is not None:
                    main(going)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(1) from None
    sys.stdout.flush()
    raise SystemExit(0)


def switch_values(words: Sequence[str], settings_type: type) -> list[str]:
    """The same command line, in which --x and --no-x give a value to switches that may be left to something else: tyro
    has these forms for switches that are on or off only."""
    switches = {name for name, kind in get_type_hints(settings_type).items() if kind == bool | None}
    named = {f"--{'no-' * off}{name}".replace("_", "-"): (name, off) for name in switches for off in (False, True)}
    found: list[str] = []
    for place, word in enumerate(words):
        name, off = named.get(word.replace("_", "-"), ("", False))
        if not name or (not off and words[place + 1 : place + 2] in (["True"], ["False"], ["None"])):
            found.append(word)
        else:
            found += [f"--{name}".replace("_", "-"), str(not off)]
    return found


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM ends a process that has joined a cluster with status 1, too, and in the time that its sender gives.

    Ray's own handler exits with the signal's number, and its other one, in C++, has an alarm abort the process 3 s
    later: too soon for what is still to be published.
    """
    try:
        yield
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        signal.alarm(0)
        print("told to end (SIGTERM)", file=sys.stderr)
        raise SystemExit(1) from None


def default_workers() -> int:
    """Simulator actors that this machine carries: one a core, at least one."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
