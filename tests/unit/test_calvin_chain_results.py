"""What chains leave behind: the ledger that resumes, and the published numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from avavla_ray.evaluation.chain_results import (
    ChainLedger,
    ChainRecord,
    chain_table,
    mean_interval,
    summarise_chains,
)

TASKS = ["open_drawer", "turn_on_led", "lift_red_block_table", "place_in_drawer", "close_drawer"]


def chain(number: int, completed: int, error: str | None = None) -> ChainRecord:
    begun = min(completed + 1, 5)
    return ChainRecord(number, TASKS, completed, [40] * begun, [2] * begun, [10.0] * begun, error=error)


def test_published_numbers() -> None:
    result = summarise_chains([chain(0, 5), chain(1, 2), chain(2, 0), chain(3, 1)], scene="d")
    assert [row["successes"] for row in result["in_a_row"]] == [3, 2, 1, 1, 1]
    assert {row["chains"] for row in result["in_a_row"]} == {4}
    assert result["average_length"] == 2.0
    assert result["tasks"]["open_drawer"] == {"episodes": 4, "successes": 3}
    assert result["tasks"]["lift_red_block_table"] == {"episodes": 2, "successes": 1}
    assert (result["scene"], result["mean_latent_steps"], result["ms_mean"]) == ("d", 2.0, 10.0)
    json.dumps(result, allow_nan=False)
    assert "| average length | 2.00 |" in chain_table(result)


def test_an_aborted_chain_is_in_no_number_and_is_named() -> None:
    whole = [chain(0, 5), replace(chain(1, 2), attempts=2)]
    without = summarise_chains(whole)
    result = summarise_chains([replace(chain(3, 1, "it broke"), attempts=3), *whole])
    aborted = {
        "aborted": [{"sequence": 3, "attempts": 3, "error": "it broke"}],
        "aborted_chains": 1,
    }
    assert result == {**without, **aborted}
    assert (result["chains"], result["average_length"], result["retried_chains"]) == (2, 3.5, 1)
    assert "1 aborted chain(s), in none" in chain_table(result)
    assert "- sequence 3, begun 3 times: it broke" in chain_table(result)
    assert "aborted" not in chain_table(without)


def test_no_chains_make_no_numbers() -> None:
    for records in ([], [chain(0, 1, "it broke")]):
        result = summarise_chains(records)
        assert result["average_length"] is None
        assert result["average_length_ci95"] == [0.0, 5.0]
        json.dumps(result, allow_nan=False)
        assert "| average length | - | 0.00 - 5.00 |" in chain_table(result)


def test_interval_of_the_average_holds_it_and_narrows() -> None:
    few, many = mean_interval([5] * 10, 0, 5), mean_interval([5] * 1000, 0, 5)
    assert few[1] == many[1] == 5
    assert 3 < few[0] < many[0] < 5
    low, high = mean_interval([0, 5] * 500, 0, 5)
    assert (low, high) == pytest.approx((2.5 - 1.96 * 2.5 / 1000**0.5, 2.5 + 1.96 * 2.5 / 1000**0.5), abs=0.01)


def test_a_stopped_evaluation_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    first = ChainLedger(path, {"scene": "d"}, resume=False)
    first.add(chain(0, 5))
    first.add(chain(1, 3))
    with open(path, "a", encoding="utf-8") as stream:
        stream.write('{"sequence": 2, "tas')
    again = ChainLedger(path, {"scene": "d"}, resume=True)
    assert again.records == {("", 0): chain(0, 5), ("", 1): chain(1, 3)}
    again.add(chain(2, 1))
    assert ChainLedger(path, {"scene": "d"}, resume=True).records["", 2] == chain(2, 1)


def test_finished_chains_are_never_lost_or_mixed(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    ChainLedger(path, {"scene": "d"}, resume=False).add(chain(0, 5))
    with pytest.raises(InputError, match="--resume"):
        ChainLedger(path, {"scene": "d"}, resume=False)
    with pytest.raises(InputError, match="another evaluation"):
        ChainLedger(path, {"scene": "a"}, resume=True)
    assert ChainLedger(path, {"scene": "d"}, resume=True).records["", 0].completed == 5


def test_an_aborted_chain_is_forgotten_and_played_again(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    ledger = ChainLedger(path, {"scene": "d"}, resume=False)
    ledger.add(chain(0, 5))
    ledger.add(chain(1, 2, "it broke"))
    assert set(ChainLedger(path, {"scene": "d"}, resume=True).records) == {("", 0)}
    assert "it broke" not in path.read_text()


@pytest.mark.parametrize("resume", [True, False])
def test_an_empty_ledger_is_a_fresh_start(tmp_path: Path, resume: bool) -> None:
    path = tmp_path / "chains.jsonl"
    path.touch()
    ChainLedger(path, {"scene": "d"}, resume).add(chain(0, 5))
    assert ChainLedger(path, {"scene": "d"}, resume=True).records == {("", 0): chain(0, 5)}
