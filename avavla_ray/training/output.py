"""The folder of a run: written once with what the run is, and refused to any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.files import write_json

SETTINGS = "settings.json"
CHECKPOINTS = "checkpoints"  # what the run resumes from
REFUSAL = "refusal.json"  # why the workers of a launch gave up; tells their successors not to try again
LAUNCH = "launch"  # tells workers that they see the driver's folder, and not one of the same name


def check_output(output: Path, identity: dict[str, Any], resume: bool) -> None:
    """Refuse to mix runs: a fresh run wants an empty folder, a resumed one the settings it began with. Writes them.

    Raises:
        InputError: names the folder, or the settings that differ.
    """
    check_identity(output, identity, resume)
    if not (output / SETTINGS).is_file():
        write_json(output / SETTINGS, identity)


def check_identity(output: Path, identity: dict[str, Any], resume: bool) -> None:
    """The same, without writing anything."""
    path = output / SETTINGS
    if not path.is_file():
        if resume:
            raise InputError(f"{output} holds no run to resume: leave --resume out, or give the run's --output")
        return
    check_unused(output, resume)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not readable ({error}): give another --output") from error
    now = json.loads(json.dumps(identity))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        changes = ", ".join(f"{key} {before.get(key)} -> {now.get(key)}" for key in differing)
        raise InputError(
            f"{output} was begun with other settings ({changes}): resume with those, or give another --output"
        )


def refuse(output: Path, launch: str, reason: str) -> None:
    """Note why the workers of a launch cannot go on, however often they are started again."""
    write_json(output / REFUSAL, {"launch": launch, "reason": reason})


def refusal(output: Path, launch: str) -> str | None:
    """Why the workers of this launch gave up; None if they did not."""
    path = output / REFUSAL
    if not path.is_file():
        return None
    noted = json.loads(path.read_text(encoding="utf-8"))
    return noted["reason"] if noted["launch"] == launch else None


def check_unused(output: Path, resume: bool) -> None:
    """Raise InputError when `output` holds a run that nobody asked to resume. Writes nothing."""
    if (output / SETTINGS).is_file() and not resume:
        raise InputError(f"{output} holds a run already: add --resume to continue it, or give another --output")
