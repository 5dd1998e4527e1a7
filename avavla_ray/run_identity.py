"""What --run-id and AVAVLA_RUNS mean to every job: where its run lies, and that the same command goes on with it.

AVAVLA_RUNS   folder or URI of all runs; runs/ when unset. OUTPUT, where it is left out, is AVAVLA_RUNS/<run-id>, and
              without a --run-id what it would be below runs/.
--run-id      given by whoever starts the job, it makes the command repeatable: OUTPUT/run.json notes whose run that
              is, the same command again resumes it, and once it is finished says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from avavla_ray.errors import InputError
from avavla_ray.files import write_json
from avavla_ray.provenance import PACKAGE
from avavla_ray.storage.recorded import recorded
from avavla_ray.training.output import SETTINGS
from avavla_ray.training.run_lock import RunLock

RUNS = "AVAVLA_RUNS"
NOTE = "run.json"  # in OUTPUT: {"job": ..., "run_id": ..., "finished": the settings it was finished with, or null}
LOCK = ".run.lock"
LEDGERS = ("episodes.jsonl", "chains.jsonl", "offline.jsonl")  # of jobs that write no settings, of several suites below
# A run that was finished with other ones of these is finished all the same.
NO_MATTER = ("output", "run_id", "resume", "tracking_uri", "num_runners")
# Jobs whose output depends on what they are asked for, below the folder of all runs.
NAMED_BY = {"collect_demos": ("demos", "suite")}
DYING_S = 30.0  # a process that was told to end, or killed, lets go of its folder in that time

Settings = TypeVar("Settings")


def with_default_output(argv: Sequence[str], job: str, settings_type: Any, environ: Mapping[str, str]) -> list[str]:
    """The words of a command line, with --output where it is left out and --run-id or AVAVLA_RUNS says which it is.

    Args:
        argv: without the program. job: its name, as jobs/NAME.py.

    Raises:
        InputError: a --run-id that names no folder.
    """
    words = list(argv)
    fields = {field.name: field for field in dataclasses.fields(settings_type)}
    if "output" not in fields or _given(words, "--output") is not None or {"-h", "--help"} & set(words):
        return words
    root, run_id = environ.get(RUNS), _given(words, "--run-id") if "run_id" in fields else None
    if run_id is not None:
        return [*words, "--output", _below(root or "runs", _checked(run_id))]
    if not root:
        return words
    default = fields["output"].default
    if job in NAMED_BY:
        folder, option = NAMED_BY[job]
        return [*words, "--output", _below(root, f"{folder}/{_given(words, f'--{option}') or fields[option].default}")]
    if not isinstance(default, Path):  # it has to be given, or the job looks for a free one
        return words
    return [*words, "--output", _below(root, default.as_posix().removeprefix("runs/"))]


@contextlib.contextmanager
def continued(settings: Settings, job: str) -> Iterator[Settings | None]:
    """The settings to run a job with: resuming, where a --run-id was given and OUTPUT holds that run. None when it is
    finished, unless --resume asks for what was given up on the way. Inside the block no other process that was given a
    run id runs in OUTPUT; at its end the run is finished.

    Raises:
        InputError: OUTPUT holds another run, or another process runs in it.
    """
    known: Any = settings
    output: Any = getattr(settings, "output", None)
    if output is not None and any(part.startswith(PACKAGE) for part in Path(output).absolute().parts):
        print(f"{output} lies in a copy of the project that Ray may throw away: set {RUNS} or an absolute --output")
    run_id = getattr(settings, "run_id", None)
    if run_id is None:
        yield settings
        return
    _checked(run_id)
    new = not output.exists()
    with RunLock(output, DYING_S, LOCK):
        before = _noted(output)
        if before is not None and (before["job"], before["run_id"]) != (job, run_id) and not known.resume:
            raise InputError(
                f"{output} holds run {before['run_id']} of {before['job']}: give another --run-id or another --output"
            )
        asked = _asked(settings)
        if before is not None and before["finished"] == asked and not known.resume:
            print(f"run {run_id} is finished, its results are in {output}: for a new one give another --run-id")
            yield None
            return
        note = {"job": job, "run_id": run_id, "finished": None}
        write_json(output / NOTE, note)
        try:
            again = before is not None and holds_run(output)
            yield dataclasses.replace(known, resume=known.resume or again)
        except InputError:
            if before is not None:
                write_json(output / NOTE, before)
            elif new:
                _forget(output)
            raise
        write_json(output / NOTE, {**note, "finished": asked})


def holds_run(output: Path) -> bool:
    """Whether a job has begun in this folder, so far that it can be resumed."""
    ledgers = (path for name in LEDGERS for pattern in (name, f"*/{name}") for path in output.glob(pattern))
    return (output / SETTINGS).is_file() or next(ledgers, None) is not None


def _given(words: Sequence[str], option: str) -> str | None:
    """The value of an option, however it is written; None where it is not there."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if equals else next(iter(words[place + 1 : place + 2]), None)
    return None


def _checked(run_id: str) -> str:
    path = PurePosixPath(run_id)
    if not run_id.strip() or path.is_absolute() or {"..", "."} & set(run_id.split("/")) or run_id.endswith("/"):
        raise InputError(f"--run-id {run_id!r} is no folder's name: give one such as spatial-1")
    return run_id


def _below(root: str, name: str) -> str:
    """A folder of a folder or URI; a URI keeps its options (s3://BUCKET/runs?region=REGION)."""
    place, mark, options = root.partition("?") if "://" in root else (root, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


def _asked(settings: Any) -> dict[str, Any]:
    """What the command asks for, as JSON keeps it and as any machine would note it."""
    asked = {name: recorded(value) for name, value in dataclasses.asdict(settings).items() if name not in NO_MATTER}
    return json.loads(json.dumps(asked, default=str))


def _noted(output: Path) -> dict[str, Any] | None:
    path = output / NOTE
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not readable ({error}): give another --output") from error


def _forget(output: Path) -> None:
    """A refused job must not use up its folder: remove it where nothing but ours is in it."""
    if {path.name for path in output.iterdir()} <= {NOTE, LOCK}:
        (output / NOTE).unlink(missing_ok=True)
        (output / LOCK).unlink(missing_ok=True)
        output.rmdir()
