"""The wait of a pod that is told to end: for those who have something to hand in, and for nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.hand_in import hand_in
from actors.termination import TerminationWatch, waiting
from avavla_ray.errors import InputError

# A process that looks at the file and hands in on "safe"; "fork" leaves a child behind that lives on.
RUNNER = """
import os, sys, time
from actors.termination import TerminationWatch
watch = TerminationWatch("file:" + sys.argv[1], every_s=0.01)
print("ready", flush=True)
for line in sys.stdin:
    if line == "safe\\n":
        while watch.notice is None:
            time.sleep(0.01)
        watch.handed_in()
    if line == "fork\\n" and os.fork() == 0:
        os.close(1)
        time.sleep(60)
    print("done", flush=True)
"""
HOOK = [sys.executable, "-m", "actors.hand_in"]


class Process:
    def __init__(self, notice: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(notice)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.hears()

    @property
    def name(self) -> str:
        return str(self._process.pid)

    def tell(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def hears(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """Also what it has forked."""
        os.killpg(self._process.pid, 9)
        self._process.wait()


@pytest.fixture
def notice(tmp_path: Path) -> Path:
    return tmp_path / "pod" / "leaving"


@pytest.fixture
def runner(notice: Path) -> Iterator[Callable[[], Process]]:
    runners: list[Process] = []

    def start() -> Process:
        runners.append(Process(notice))
        return runners[-1]

    yield start
    for each in runners:
        each.kill_all()


def test_where_nobody_plays_nobody_waits(notice: Path) -> None:
    begun = time.monotonic()
    assert hand_in(notice, 60) == []
    assert time.monotonic() - begun < 10
    assert notice.exists()


def test_the_wait_ends_when_all_have_handed_in(notice: Path, runner: Callable[[], Process]) -> None:
    first, second = runner(), runner()
    assert sorted(waiting(notice)) == sorted([first.name, second.name])
    hook = subprocess.Popen([*HOOK, str(notice), "--seconds", "60"])
    first.tell("safe")  # which it is as soon as it has heard
    first.hears()
    with pytest.raises(subprocess.TimeoutExpired):
        hook.wait(0.5)
    assert waiting(notice) == [second.name]
    second.tell("safe")
    assert hook.wait(10) == 0


def test_who_has_died_is_not_waited_for_whatever_it_has_forked(notice: Path, runner: Callable[[], Process]) -> None:
    dead = runner()
    dead.tell("fork")
    dead.hears()
    assert waiting(notice) == [dead.name]
    dead.kill()
    assert hand_in(notice, 60) == []


def test_after_its_time_it_says_who_is_missing(notice: Path, runner: Callable[[], Process]) -> None:
    late = runner()
    done = subprocess.run([*HOOK, str(notice), "--seconds", "0.3"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == f"after 0.3 s not all is handed in: processes {late.name}\n"


def test_a_watch_that_is_stopped_or_has_handed_in_leaves_nothing_behind(notice: Path) -> None:
    for end in (TerminationWatch.stop, TerminationWatch.handed_in):
        watch = TerminationWatch(f"file:{notice}")
        marks = list(notice.parent.glob("leaving.marks/*"))
        assert [place.name for place in marks] == [str(os.getpid())]
        end(watch)
        watch.stop()
        assert not marks[0].exists()


def test_a_mark_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give file:PATH in a folder that can"):
        TerminationWatch(f"file:{tmp_path}/file/leaving")
