"""Checkpoints outlive writers that are killed in the middle, and disks that are full."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avavla_ray.training.run_checkpoints import RunCheckpoints
from tests.support.checkpoint_writer import assert_whole
from tests.support.small_disks import NAMESPACE, REFUSED, can_mount

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10


def _killed_writer(folder: Path, seconds: float, again: str) -> tuple[int, list[int]]:
    """Start a writer, kill it so long after it began to write; its first step, and the steps that it wrote."""
    command = [sys.executable, "-m", "tests.support.checkpoint_writer", "train", str(folder), again]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        first = writer.stdout.readline()
        time.sleep(seconds)
        writer.kill()
        rest = writer.stdout.read()
    return int(first), [int(line) for line in rest.splitlines()]


@pytest.mark.parametrize("again", ["on", "again"])
def test_sigkill_at_any_moment_loses_nothing_that_was_written(tmp_path, capsys, again):
    """`again`: every writer starts by writing the newest checkpoint again."""
    draws, run, torn, last = random.Random(again), RunCheckpoints(tmp_path), 0, 0
    for _ in range(KILLS):
        first, written = _killed_writer(tmp_path, draws.uniform(0.0, 0.05), again)
        assert first == max(last + (again == "on"), 1), "it resumes from the newest"
        torn += any(tmp_path.glob(".step-*.tmp"))
        newest, best = run.newest(verify=True), run.best(verify=True)
        if newest is None:
            assert (last, written) == (0, [])
            continue
        assert newest.step >= max([last, *written])
        assert_whole(newest)
        assert_whole(best)
        assert best.step == min(newest.step, 20)
        assert len(list(tmp_path.glob("step-*"))) <= 4
        last = newest.step
    assert torn > KILLS / 5, "the kills hit writers in the middle"
    assert "is damaged" not in capsys.readouterr().out, "none of what stands under its name was ever damaged"
    run.write(last + 1, lambda folder: None, score=None, facts={})
    assert not list(tmp_path.glob(".*.tmp"))


def test_sigkill_before_every_single_change_to_the_disk_leaves_a_whole_checkpoint(tmp_path, capsys):
    command = [sys.executable, "-m", "tests.support.checkpoint_writer", "die", str(tmp_path), ""]
    subprocess.run(command, cwd=ROOT, check=True)
    points = len(list(tmp_path.iterdir()))
    assert points > 20
    attempts = []
    for point in range(points):
        newest = RunCheckpoints(tmp_path / str(point)).newest(verify=True)
        assert newest is not None, f"nothing is left when it is killed before change {point}"
        assert_whole(newest)
        attempts.append(newest.path.name)
    assert capsys.readouterr().out == ""
    assert attempts == sorted(attempts), "the new one takes over at one point"
    assert len(set(attempts)) == 2


@pytest.mark.parametrize("way", ["plain", "nested", "torch"])
def test_a_full_disk_is_told_of_and_leaves_the_older_ones(tmp_path, way):
    if not can_mount():
        pytest.skip(REFUSED)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size=4m tmpfs {disk} && mkdir {disk}/run &&
        {sys.executable} -m tests.support.checkpoint_writer fill {disk}/run {way} &&
        cp -a {disk}/run {tmp_path}/after && df --output=avail -B1 {disk} | tail -1
    """
    done = subprocess.run([*NAMESPACE, script], cwd=ROOT, capture_output=True, text=True, check=True)
    message, free = done.stdout.splitlines()
    assert message == f"no space left on the disk that holds {disk}/run: free some and resume the run"
    names = sorted(path.name for path in (tmp_path / "after").iterdir())
    newest = RunCheckpoints(tmp_path / "after").newest(verify=True)
    assert names == [f"step-{step:09d}" for step in (newest.step - 1, newest.step)]
    assert newest.step > 5
    assert int(free) > 4e6 - 2.2 * 100_000 * newest.step, "what did not fit is gone"
