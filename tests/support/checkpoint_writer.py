"""Processes that write checkpoints of a run until somebody kills them or their disk is full."""

from __future__ import annotations

import functools
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


def train(folder: Path, again: bool) -> None:
    """Resume, tell of the first step, write step after step, and tell of each that is written.

    Args:
        again: the first step is the newest checkpoint's, which is thereby written over.
    """
    with RunLock(folder):
        run = RunCheckpoints(folder)
        newest = run.newest(verify=True)
        step = 1 if newest is None else newest.step + (not again)
        print(step, flush=True)
        while True:
            write(run, step)
            print(step, flush=True)
            step += 1


def fill_the_disk(folder: Path, way: str) -> None:
    """Write larger and larger checkpoints, in one `way` of writing, until one does not fit; tell of it."""
    run = RunCheckpoints(folder)
    try:
        for step in range(1, 100):
            run.write(step, functools.partial(_grow, way=way, size=100_000 * step), score=None, facts={})
    except InputError as error:
        print(error, flush=True)


def _grow(folder: Path, way: str, size: int) -> None:
    if way == "bytes":
        (folder / "a.bin").write_bytes(bytes(size))
        return
    import torch

    from avavla_ray.policy.tensors import save_tensors

    tensor = torch.zeros(size, dtype=torch.uint8)
    if way == "torch":
        torch.save(tensor, folder / "a.pt")
    else:
        with atomic_path(folder / "policy") as temporary:
            temporary.mkdir()
            save_tensors({"a": tensor}, temporary / "a.safetensors")


if __name__ == "__main__":
    command, place, argument = sys.argv[1:]
    if command == "train":
        train(Path(place), argument == "again")
    else:
        fill_the_disk(Path(place), argument)
