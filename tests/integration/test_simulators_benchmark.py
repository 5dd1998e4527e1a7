"""The benchmark of the simulators measures what its tables say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avavla_ray.errors import InputError
from benchmarks.simulator_cost.calvin import measure_cases
from benchmarks.simulator_cost.processes import measure_apart
from benchmarks.simulator_cost.tables import table
from benchmarks.simulator_cost.turns import Mode, take_turns
from benchmarks.simulators import Settings, chosen_suites, main, worst
from tests.support.fake_calvin import FAKE_ROOT, calvin_env_at

pytestmark = pytest.mark.libero


@pytest.mark.alone
def test_ours_is_stock_in_state_and_reference_picture_and_cheaper() -> None:
    both, decisions = Mode(2, 8), Mode(1, 1)
    found = take_turns("libero_object", 0, "bundled", (128,), (both, decisions), seconds=0, least=3)
    assert found.state_error["stock"] == found.state_error["reference"] == found.squared_error["reference"].max() == 0
    assert found.state_error["fast"] == found.state_error["physics"] < 1e-6
    assert found.turns == 3
    ms = {(name, mode): found.milliseconds[name, 128, mode] for name, _, mode in found.milliseconds}
    assert ms["stock", both] > ms["stock", decisions] > ms["reference", both] > ms["fast", both]
    # Some twelve times, and 1.2, where nothing else runs.
    assert ms["stock", both] > 3 * ms["fast", both]
    assert ms["fast", both] < 4 * ms["physics", both]
    assert 10 < found.squared_error["fast"].min() < found.squared_error["fast"].max() < 300


def test_a_process_tells_its_times_and_memory() -> None:
    found = measure_apart("libero_object", 0, "bundled", "fast")
    assert 0 < found["reset_s"] < found["start_s"]
    assert found["switch_warm_s"] < found["switch_cold_s"]
    assert 50 < found["private_mib"] < found["resident_mib"] < 1500
    assert 2 < found["task_mib"] < 100


def test_calvin_is_compared_with_its_own_step() -> None:
    with calvin_env_at(FAKE_ROOT):
        found = measure_cases("calvin_d")
    assert list(found) == ["stock", "reference", "fast", "none"]
    for case in ("reference", "fast", "none"):
        assert found[case]["state_error"] == 0
        stock, ours = found["stock"]["ms_chunk_8"], found[case]["ms_chunk_8"]
        assert found[case]["speedup_vs_stock"] == stock / ours
    # The fake has one way to draw, in two shades: a hand that goes elsewhere has others.
    assert found["reference"]["image_error"] == 0
    assert 0 < found["fast"]["image_error"] < 1, "drawn as small as it is wanted, the edge between them is sharper"
    assert min(each[name] for each in found.values() for name in ("start_s", "reset_s", "ms_chunk_1")) > 0
    assert all(5 < each["private_mib"] < each["resident_mib"] for each in found.values())


def test_suites_that_cannot_run_are_left_out_unless_they_were_named(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = Settings(assets="/nowhere")
    assert "libero_object" not in chosen_suites(nowhere)
    assert "libero_object is left out: assets directory /nowhere is not a directory" in capsys.readouterr().err
    with pytest.raises(InputError, match="/nowhere is not a directory"):
        chosen_suites(Settings(assets="/nowhere", suites=("libero_object",)))
    assert chosen_suites(Settings(quick=True)) == ["libero_object"]


def test_the_headline_is_the_worst_suite() -> None:
    numbers = {
        "a.speedup_vs_stock": 12.0,
        "b.speedup_vs_stock": 9.0,
        "a.cost_over_physics": 1.2,
        "a.stock.reset_s": 1.0,
    }
    assert worst(numbers) == {"speedup_vs_stock": 9.0, "cost_over_physics": 1.2}


def test_the_files_hold_one_flat_object_and_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"speedup_vs_stock": 1.5}
    monkeypatch.setattr("benchmarks.simulators.measure", lambda settings: (numbers, "| a |"))
    main(Settings(quick=True, json=tmp_path / "numbers.json", markdown=tmp_path / "tables.md"))
    assert json.loads((tmp_path / "numbers.json").read_text()) == numbers
    assert (tmp_path / "tables.md").read_text() == "| a |"
    assert table(["x", "y"], [["a", 1234.5], ["b", 1.2345]]) == "| x | y |\n| --- | --- |\n| a | 1234 |\n| b | 1.23 |\n"
