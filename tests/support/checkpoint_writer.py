"""Processes that write checkpoints of a run until somebody kills them or their disk is full."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import atomic_path
from avavla_ray.training.run_checkpoints import RunCheckpoints, StoredCheckpoint
from avavla_ray.training.run_lock import RunLock

SIZES = {"engine.bin": 300_000, "beliefs/rank.bin": 5_000, "policy/model.bin": 200_000}


def content(step: int, name: str) -> bytes:
    """What a checkpoint's file holds: other bytes at every step."""
    return (f"{name} at {step} " * SIZES[name]).encode()[: SIZES[name]]


def fill(folder: Path, step: int) -> None:
    """Two plain files, and one in a folder that is itself written atomically, as save_checkpoint's is."""
    (folder / "engine.bin").write_bytes(content(step, "engine.bin"))
    (folder / "beliefs").mkdir()
    (folder / "beliefs" / "rank.bin").write_bytes(content(step, "beliefs/rank.bin"))
    with atomic_path(folder / "policy") as temporary:
        temporary.mkdir()
        (temporary / "model.bin").write_bytes(content(step, "policy/model.bin"))


def assert_whole(found: StoredCheckpoint) -> None:
    """It holds every file of its step, byte for byte."""
    assert found.facts == {"position": {"step": found.step}}
    for name in SIZES:
        assert (found.path / name).read_bytes() == content(found.step, name), f"{found.path / name}"


def write(run: RunCheckpoints, step: int) -> StoredCheckpoint:
    """A checkpoint whose score falls, then rises: that of step 20 is the best."""
    return run.write(
        step, lambda folder: fill(folder, step), score=abs(step - 20.0), facts={"position": {"step": step}}
    )


def train(folder: Path, first: str) -> None:
    """Resume, tell of the first step, write step after step, and tell of each that is written.

    Args:
        first: "again": the first step is the newest checkpoint's, which is thereby written again.
    """
    with RunLock(folder):
        run = RunCheckpoints(folder)
        newest = run.newest(verify=True)
        step = 1 if newest is None else newest.step + (first != "again")
        print(step, flush=True)
        while True:
            write(run, step)
            print(step, flush=True)
            step += 1


def die_everywhere(folder: Path, _: str) -> None:
    """Fill FOLDER/0, FOLDER/1, ... by writers that are killed before their first, second, ... change to the disk.

    Each has step 1 whole, is killed while it writes it again, and keeps one checkpoint. The last one is not killed.
    """
    for point in itertools.count():
        run = RunCheckpoints(folder / str(point), keep=1)
        write(run, 1)
        child = os.fork()
        if child == 0:
            left = itertools.count(point, -1)

            def die(event: str, arguments: tuple[object, ...], left: itertools.count[int] = left) -> None:
                writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY
                if (writes or event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove")) and next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(die)
            write(run, 1)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def fill_the_disk(folder: Path, way: str) -> None:
    """Write larger and larger checkpoints, in one `way` of writing, until one does not fit; tell of it."""
    run = RunCheckpoints(folder)
    try:
        for step in range(1, 100):
            run.write(step, functools.partial(_grow, way=way, size=100_000 * step), score=None, facts={})
    except InputError as error:
        print(error, flush=True)


def _grow(folder: Path, way: str, size: int) -> None:
    if way == "plain":
        (folder / "a.bin").write_bytes(bytes(size))
    elif way == "nested":
        with atomic_path(folder / "policy") as temporary:
            temporary.mkdir()
            (temporary / "a.bin").write_bytes(bytes(size))
    else:
        import torch

        torch.save(torch.zeros(size, dtype=torch.uint8), folder / "a.pt")


if __name__ == "__main__":
    command, place, argument = sys.argv[1:]
    {"train": train, "die": die_everywhere, "fill": fill_the_disk}[command](Path(place), argument)
