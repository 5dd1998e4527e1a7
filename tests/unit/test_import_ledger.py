"""The ledger of an import: what is settled stays so, and only that."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.demonstrations.importers.ledger import ImportLedger
from avavla_ray.demonstrations.importers.source import Member, Skipped
from avavla_ray.demonstrations.reader import read_metadata
from avavla_ray.demonstrations.schema import Episode
from avavla_ray.errors import InputError
from tests.support.demonstration_data import make_episode

WHOLE, PART, BROKEN = (Member(name, f"file of {name}", {"bytes": 7}) for name in ("whole", "part", "broken"))


def named(name: str) -> Episode:
    episode = make_episode(0, 5)
    return replace(episode, info=replace(episode.info, episode=name))


def half_done(folder: Path) -> ImportLedger:
    ledger = ImportLedger(folder, {"kind": "x"})
    ledger.settle(WHOLE, [named("whole-0"), named("whole-1")], [], None)
    ledger.settle(PART, [named("part-0")], [Skipped("part-1", "unknown task: x")], None)
    ledger.settle(BROKEN, [], [], "not finite: x")
    return ledger


@pytest.mark.parametrize("finished", [False, True])
def test_it_remembers_what_is_settled(tmp_path, finished):
    ledger = half_done(tmp_path)
    if finished:
        ledger.finish([WHOLE, PART, BROKEN], {"suite": "s"})
    again = ImportLedger(tmp_path, {"kind": "x"})
    assert [again.is_settled(member) for member in (WHOLE, PART, BROKEN)] == [True, True, False]
    assert again.of([PART, BROKEN]) == ledger.of([PART, BROKEN])
    assert not again.is_settled(WHOLE._replace(detail={"bytes": 8})), "the source has changed"
    assert not again.is_settled(Member("new", "", {}))
    path = tmp_path / "steps" / "whole-1.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert not again.is_settled(WHOLE)


def test_a_torn_line_is_forgotten_and_cut_off(tmp_path):
    half_done(tmp_path)
    journal = tmp_path / "import.jsonl"
    whole = journal.read_text()
    journal.write_text(whole[:-5])
    again = ImportLedger(tmp_path, {"kind": "x"})
    assert again.is_settled(PART)
    again.settle(BROKEN, [], [], "not finite: x")
    assert journal.read_text() == whole


def test_it_sums_up(tmp_path):
    summary = half_done(tmp_path).finish([WHOLE, PART, BROKEN], {"suite": "s"})
    assert summary == {
        "members": 3, "episodes": 3, "steps": 15, "dropped_steps": 0, "instructions": 1, "left_out": 2,
        "reasons": {"not finite": 1, "unknown task": 1},
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".import.lock", "dataset.json", "dataset_statistics.json", "episodes.parquet", "import.json", "steps",
    ]  # fmt: skip


def test_episodes_that_a_member_no_longer_has_go(tmp_path):
    ledger = half_done(tmp_path)
    ledger.settle(WHOLE, [named("whole-1")], [], None)
    assert sorted(path.stem for path in (tmp_path / "steps").iterdir()) == ["part-0", "whole-1"]


def test_a_data_set_of_which_a_part_is_replaced_is_not_read(tmp_path):
    half_done(tmp_path).finish([WHOLE, PART, BROKEN], {"suite": "s"})
    again = ImportLedger(tmp_path, {"kind": "x"})
    again.settle(BROKEN, [], [], "not finite: x")
    assert read_metadata(tmp_path).steps == 15, "nothing of it has changed"
    again.settle(PART, [], [], "not finite: x")
    with pytest.raises(InputError, match="is an unfinished import"):
        read_metadata(tmp_path)
    again.finish([WHOLE, PART, BROKEN], {"suite": "s"})
    assert read_metadata(tmp_path).steps == 10


def test_what_vanishes_from_the_source_is_told_of_until_it_is_back(tmp_path):
    half_done(tmp_path).finish([WHOLE, PART, BROKEN], {"suite": "s"})
    for _ in range(2):
        again = ImportLedger(tmp_path, {"kind": "x"})
        gone = again.settle_gone([WHOLE])
        assert gone == [PART], "of what was broken nothing is missed"
        summary = again.finish([WHOLE, *gone], {"suite": "s"})
        assert (summary["episodes"], summary["left_out"], summary["reasons"]) == (2, 1, {"gone": 1})
        assert sorted(path.stem for path in (tmp_path / "steps").iterdir()) == ["whole-0", "whole-1"]
    again = ImportLedger(tmp_path, {"kind": "x"})
    assert again.settle_gone([WHOLE, PART]) == []
    assert not again.is_settled(PART)


def test_two_jobs_do_not_share_a_folder(tmp_path):
    half_done(tmp_path)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".import.lock")]
    before = sorted(tmp_path.rglob("*"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        (tmp_path / "steps" / ".whole-2.parquet.01234567.tmp").touch()
        with pytest.raises(InputError, match="another job imports into it, wait for it or give another --output"):
            ImportLedger(tmp_path, {"kind": "x"})
        assert len(sorted(tmp_path.rglob("*"))) == len(before) + 1, "the other's unfinished file is left alone"
        other.stdin.close()
    assert ImportLedger(tmp_path, {"kind": "x"}).is_settled(WHOLE)


def test_what_is_not_its_own_is_refused(tmp_path):
    half_done(tmp_path / "a")
    with pytest.raises(InputError, match="holds an import made otherwise .kind x -> y."):
        ImportLedger(tmp_path / "a", {"kind": "y"})
    with pytest.raises(InputError, match="is not empty and holds no import"):
        ImportLedger(tmp_path, {"kind": "x"})
    (tmp_path / "a" / "import.jsonl").write_text("[]\n{}\n")
    with pytest.raises(InputError, match="holds no import of ours"):
        ImportLedger(tmp_path / "a", {"kind": "x"})
