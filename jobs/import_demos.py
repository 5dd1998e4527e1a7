#!/usr/bin/env python
"""Bring published demonstrations into this project's Parquet episodes, or with --export ours into LeRobot's format.

Kinds: LIBERO's HDF5 files, CALVIN's npz data set, LeRobot v3. Repeating the command continues where it stopped, and
adds nothing that is there already. What is broken is left out, named, counted, and tried again at the next repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import default_workers, run_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avavla_ray.demonstrations.importers.source import Member


@dataclass(frozen=True)
class Settings:
    """Settings of an import."""

    source: Path
    """Folder or file as it was downloaded; with --export, a data set of ours."""
    output: Path
    """Folder of the data set to write."""
    kind: Literal["libero-hdf5", "calvin", "lerobot"] | None = None
    """Layout of the source; needed for an import."""
    export: bool = False
    """Write LeRobot v3 from a data set of ours instead of reading the source."""
    fps: int | None = None
    """With --export: steps in a second of the robot's time; known for our suites and for what was imported."""
    suite: str | None = None
    """Suite of the data; LIBERO's is the source's folder name when left out."""
    regenerate: int | None = None
    """LIBERO: pictures of so many pixels from the stored states, shown again in the simulator; 256 is usual."""
    assets: str | None = None
    """With --regenerate: official, bundled (when left out), or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] | None = None
    """With --regenerate: the simulator's renderer, fast when left out."""
    keep_noops: bool = False
    """LIBERO: keep steps that do nothing."""
    image_size: int | None = None
    """CALVIN, LeRobot: height and width of the pictures, pixels; left out, 128 and as they are."""
    cameras: tuple[str, ...] = ()
    """LeRobot: features, the scene's camera first and the wrist's second; all of them when left out."""
    state: str | None = None
    """LeRobot: the feature that is the proprioception, observation.state when left out."""
    action: str | None = None
    """LeRobot: the feature that is the action, action when left out."""
    gripper: Literal["signed", "open_fraction", "closed_fraction"] | None = None
    """LeRobot: an action ends in -1 and +1 as in ours (signed, when left out), in 1 open, 0 closed (open_fraction), or
    in 0 open, 1 closed (closed_fraction)."""
    turn: Literal["upright", "half_turn", "upside_down", "mirrored"] | None = None
    """LeRobot: how its pictures lie, by our simulators' own; upright when left out."""
    limit: int | None = None
    """Only the first so many members of the source."""
    strict: bool = False
    """Whatever is left out is an error, and the data set is not closed."""
    resume: bool = True
    """Continue what the folder holds; with --no-resume a folder that holds anything is refused."""
    num_runners: int = default_workers()
    """Reading actors."""
    timeout: float = 600.0
    """A member that takes more seconds has hung and is tried again."""


NAMED = 20  # of what was left out; import.json names all


def main(settings: Settings) -> None:
    _check(settings)
    if settings.export:
        _export(settings)
        return
    import functools
    import time

    from avavla_ray.demonstrations.importers.ledger import ImportLedger
    from avavla_ray.demonstrations.importers.source import open_source
    from avavla_ray.errors import InputError
    from avavla_ray.progress import Progress
    from avavla_ray.provenance import provenance
    from avavla_ray.storage.sharing import portable

    assert settings.kind is not None
    options = _options(settings)
    source = open_source(settings.kind, settings.source.absolute(), **options)
    found = source.members()
    if not found:
        raise InputError(f"{settings.source} holds no demonstrations")
    _check_names(found)
    ledger = ImportLedger(settings.output, {"kind": settings.kind, "suite": source.suite, **source.manifest()})
    members = found[: settings.limit]
    pending = [member for member in members if not ledger.is_settled(member)]
    start, already = time.monotonic(), len(members) - len(pending)
    if pending:
        from actors.cluster import connect
        from actors.demonstration_import import Reading, open_here, read_members

        connect(cpus=settings.num_runners)
        make_source = functools.partial(open_here, settings.kind, portable(settings.source), **options)
        missing = 0
        with Progress(len(members), f"import {source.suite}", "members", done=already) as progress:

            def settle(member: Member, reading: Reading) -> None:
                nonlocal missing
                ledger.settle(member, reading.episodes, reading.skipped, reading.broken)
                missing += len(reading.skipped) + (reading.broken is not None)
                progress.advance(1, left_out=missing)

            read_members(pending, make_source, settle, num_actors=settings.num_runners, timeout_s=settings.timeout)
    count = len(members)
    members = [*members, *ledger.settle_gone(found)]
    left_out = [told for entry in ledger.of(members) for told in entry.left_out]
    for where, reason in left_out[:NAMED]:
        print(f"left out: {where}: {reason}")
    if len(left_out) > NAMED:
        print(f"left out: {len(left_out) - NAMED} more, named in {settings.output / 'import.json'}")
    if not any(entry.written for entry in ledger.of(members)):
        raise InputError(f"nothing of {settings.source} could be imported; the first: {': '.join(left_out[0])}")
    if settings.strict and left_out:
        raise InputError(
            f"{len(left_out)} left out, the first: {': '.join(left_out[0])}; repeat without --strict to accept"
        )
    described = {"suite": source.suite, **{key: source.manifest()[key] for key in ("image_size", "cameras", "fps")}}
    summary = ledger.finish(members, {**described, "provenance": provenance(seed=0, source=settings.source.name)})
    reasons = ", ".join(f"{count} {sort}" for sort, count in summary["reasons"].items())
    print(
        f"{summary['episodes']} demonstrations, {summary['steps']} steps, {summary['instructions']} instructions; "
        f"{summary['dropped_steps']} steps dropped, {summary['left_out']} left out{reasons and f' ({reasons})'}; "
        f"{len(pending)} of {count} members read in {time.monotonic() - start:.0f} s; "
        f"data set in {settings.output}"
    )
    if settings.kind == "libero-hdf5":
        _tell_untouched_tasks(settings.output, source.suite)


def _tell_untouched_tasks(folder: Path, suite: str) -> None:
    """Say which of a LIBERO suite's tasks the data set does not show; whole files may not have been downloaded."""
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.simulators.libero.suites import tasks_of

    tasks = tasks_of(suite)
    absent = sorted(set(range(len(tasks))) - {episode.task for episode in read_metadata(folder).episodes})
    if absent:
        print(f"{len(absent)} of {len(tasks)} tasks of {suite} have no demonstration: {', '.join(map(str, absent))}")


def _check_names(members: Sequence[Member]) -> None:
    """Members of one name would be one in the data set."""
    from collections import Counter

    from avavla_ray.errors import InputError

    name, count = Counter(member.name for member in members).most_common(1)[0]
    if count > 1:
        places = [member.where for member in members if member.name == name]
        raise InputError(f"{name} is there {count} times ({', '.join(places)}): keep one of them in the source")


def _options(settings: Settings) -> dict[str, Any]:
    """What was given for the source's kind."""
    assets = settings.assets
    if assets not in (None, "official", "bundled"):
        assets = str(Path(assets).absolute())  # actors run elsewhere
    given = {
        "suite": settings.suite, "regenerate": settings.regenerate, "assets": assets,
        "render": settings.render, "keep_noops": settings.keep_noops or None, "image_size": settings.image_size,
        "cameras": settings.cameras or None, "state": settings.state, "action": settings.action,
        "gripper": settings.gripper, "turn": settings.turn,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _export(settings: Settings) -> None:
    from avavla_ray.demonstrations.export_lerobot import export_lerobot
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.progress import Progress

    with Progress(len(read_metadata(settings.source).episodes), "export", "episodes") as progress:
        written = export_lerobot(settings.source, settings.output, fps=settings.fps, tick=progress.advance)
    print(
        f"{written.episodes} demonstrations, {written.steps} steps at {written.fps} Hz, "
        f"{', '.join(written.cameras)}; LeRobot v3 in {settings.output}"
    )


def _check(settings: Settings) -> None:
    from avavla_ray.errors import InputError

    of_imports = (settings.kind, settings.limit, settings.strict or None, *_options(settings).values())
    if settings.export and any(option is not None for option in of_imports):
        raise InputError("--export takes a data set of ours: give only --source and --output with it, and --fps")
    if not settings.export and settings.fps is not None:
        raise InputError("--fps goes with --export: an import takes it from the source")
    if not settings.export and settings.kind is None:
        raise InputError("--kind is missing: give libero-hdf5, calvin or lerobot, or --export")
    if settings.num_runners < 1:
        raise InputError(f"--num-runners {settings.num_runners}: give at least 1")
    if settings.limit is not None and settings.limit < 1:
        raise InputError(f"--limit {settings.limit}: give at least 1")
    if settings.timeout <= 0:
        raise InputError(f"--timeout {settings.timeout}: give more than 0")
    if settings.regenerate is None and (settings.assets or settings.render):
        raise InputError("--assets and --render go with --regenerate: without it nothing is simulated")
    output = settings.output
    if not settings.resume and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is not empty: leave --no-resume out to continue it, or give another --output")


if __name__ == "__main__":
    run_job(main, Settings)
