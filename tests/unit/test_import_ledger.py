"""The ledger of an import: what is settled stays so, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.demonstrations.importers.ledger import ImportLedger
from avavla_ray.demonstrations.importers.source import Member, Skipped
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
        "dataset.json", "dataset_statistics.json", "episodes.parquet", "import.json", "steps",
    ]  # fmt: skip


def test_episodes_that_a_member_no_longer_has_go(tmp_path):
    ledger = half_done(tmp_path)
    ledger.settle(WHOLE, [named("whole-1")], [], None)
    assert sorted(path.stem for path in (tmp_path / "steps").iterdir()) == ["part-0", "whole-1"]


def test_what_is_not_its_own_is_refused(tmp_path):
    half_done(tmp_path / "a")
    with pytest.raises(InputError, match="holds an import made otherwise .kind x -> y."):
        ImportLedger(tmp_path / "a", {"kind": "y"})
    with pytest.raises(InputError, match="is not empty and holds no import"):
        ImportLedger(tmp_path, {"kind": "x"})
    (tmp_path / "a" / "import.jsonl").write_text("[]\n{}\n")
    with pytest.raises(InputError, match="holds no import of ours"):
        ImportLedger(tmp_path / "a", {"kind": "x"})
