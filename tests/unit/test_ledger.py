"""Episodes on the disk: each once, whatever was killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from actors.ledger import BLOCK, Ledger, incarnations, read_ledger
from actors.report import Report
from avavla_ray.errors import InputError
from avavla_ray.simulators.base import EpisodeSummary


def report(*names: str, version: int = 3) -> Report:
    return Report(version, finished=[EpisodeSummary(name, 2, None, 11, True, 50, 7, 3.5) for name in names])


def test_a_line_an_episode_with_what_is_known_of_it(tmp_path: Path) -> None:
    ledger, before = Ledger(tmp_path / "run" / "episodes.jsonl"), time.time()
    ledger.append([(1, report("a", "b")), (2, report(version=9))])
    assert [row["episode_id"] for row in read_ledger(ledger.path)] == ["a", "b"]
    row = read_ledger(ledger.path)[1]
    assert before <= row.pop("time") <= time.time()
    assert row == {
        "episode_id": "b", "task": 2, "initial_state": None, "seed": 11, "success": True, "steps": 50, "decisions": 7,
        "latent_steps": 3.5, "milliseconds": [], "version": 3, "runner": 1,
    }  # fmt: skip


def test_nothing_is_touched_before_an_episode_has_ended(tmp_path: Path) -> None:
    Ledger(tmp_path / "episodes.jsonl").append([(1, report())])
    assert not list(tmp_path.iterdir())


def test_it_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "episodes.jsonl")
    for count in range(1, 4):
        ledger.append([(1, report(str(count)))])
        assert len(read_ledger(ledger.path)) == count


@pytest.mark.parametrize("torn", ['{"episode_id": "c", "ta', "{" + "x" * 3 * BLOCK, ""])
@pytest.mark.parametrize("whole", [[], ["a"], ["a", "b"]])
def test_another_process_goes_on_behind_the_last_whole_line(tmp_path: Path, whole: list[str], torn: str) -> None:
    path = tmp_path / "episodes.jsonl"
    if whole:
        Ledger(path).append([(1, report(*whole))])
    with path.open("a") as stream:
        stream.write(torn)
    assert [row["episode_id"] for row in read_ledger(path)] == whole
    Ledger(path).append([(1, report("later"))])
    assert [row["episode_id"] for row in read_ledger(path)] == [*whole, "later"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_incarnations_that_have_played_are_known(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    assert incarnations(path) == {}
    names = ("ppo-1.2-7-a0b1c2-1.0-0-12", "ppo-1.2-7-a0b1c2-1.3-1-0", "ppo-1.2-7-d3e4f5-1.2-0-0", "ppo-d3e4f5-12.0-3-4")
    Ledger(path).append([(1, report(*names))])
    assert incarnations(path) == {1: 3, 12: 0}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"episodes\.jsonl cannot be written"):
        Ledger(tmp_path / "file" / "episodes.jsonl").append([(1, report("a"))])
